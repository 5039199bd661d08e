// SPDX-License-Identifier: Apache-2.0
// HDF5 files that other programs wrote: texts and whole numbers of every kind, and files that name others.
#include <hdf5.h>
#include <sys/stat.h>

#include <functional>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/h5.hpp"
#include "fsllm/io/shard.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// As the program does before its own first call: later it has no effect, and files that a full disk left
/// half written would be closed once more at exit.
[[maybe_unused]] bool const no_clean_up_at_exit = H5dont_atexit() >= 0;

using h5::File;
using h5::Id;
using h5::Mode;
using test::TempDir;
using testing::ElementsAre;

/// A file that the C interface writes.
void make_file(std::filesystem::path const& path, std::function<void(hid_t)> const& fill) {
  Id const file(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), &H5Fclose);
  ASSERT_TRUE(file);
  fill(file.get());
}

void add_attribute(hid_t file, char const* name, hid_t type, void const* value) {
  H5Adelete(file, name);
  Id const space(H5Screate(H5S_SCALAR), &H5Sclose);
  Id const made(H5Acreate2(file, name, type, space.get(), H5P_DEFAULT, H5P_DEFAULT), &H5Aclose);
  ASSERT_GE(H5Awrite(made.get(), type, value), 0);
}

Id text_type(size_t size, H5T_cset_t characters, H5T_str_t padding) {
  Id type(H5Tcopy(H5T_C_S1), &H5Tclose);
  H5Tset_size(type.get(), size);
  H5Tset_cset(type.get(), characters);
  H5Tset_strpad(type.get(), padding);
  return type;
}

template <class T>
void add_numbers(hid_t file, char const* name, hid_t stored, hid_t memory, std::vector<T> const& values) {
  H5Ldelete(file, name, H5P_DEFAULT);
  hsize_t const size = values.size();
  Id const space(H5Screate_simple(1, &size, nullptr), &H5Sclose);
  Id const links(H5Pcreate(H5P_LINK_CREATE), &H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  Id const made(H5Dcreate2(file, name, stored, space.get(), links.get(), H5P_DEFAULT, H5P_DEFAULT),
                &H5Dclose);
  ASSERT_GE(H5Dwrite(made.get(), memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
}

TEST(ForeignH5, TextAttributesOfEveryForm) {
  TempDir dir;
  make_file(dir / "t.h5", [](hid_t file) {
    char const *long_text = "größe", *plain = "size", *empty = "", *none = nullptr;
    add_attribute(file, "variable", text_type(H5T_VARIABLE, H5T_CSET_UTF8, H5T_STR_NULLTERM).get(),
                  &long_text);
    add_attribute(file, "ascii", text_type(H5T_VARIABLE, H5T_CSET_ASCII, H5T_STR_NULLTERM).get(), &plain);
    add_attribute(file, "empty", text_type(H5T_VARIABLE, H5T_CSET_UTF8, H5T_STR_NULLTERM).get(), &empty);
    add_attribute(file, "none", text_type(H5T_VARIABLE, H5T_CSET_UTF8, H5T_STR_NULLTERM).get(), &none);
    add_attribute(file, "full", text_type(4, H5T_CSET_ASCII, H5T_STR_NULLPAD).get(), "size");
    add_attribute(file, "zeros", text_type(8, H5T_CSET_UTF8, H5T_STR_NULLPAD).get(),
                  "gr\xC3\xB6\xC3\x9F\0\0");
    add_attribute(file, "blanks", text_type(8, H5T_CSET_ASCII, H5T_STR_SPACEPAD).get(), "a b     ");
    char const* broken =
        "gr\xF6\xDF"
        "e";
    add_attribute(file, "latin1", text_type(H5T_VARIABLE, H5T_CSET_ASCII, H5T_STR_NULLTERM).get(), &broken);
    int64_t const number = 3;
    add_attribute(file, "number", H5T_NATIVE_INT64, &number);
  });
  File const file(dir / "t.h5", Mode::read);
  EXPECT_EQ(file.text_attribute("/", "variable"), "größe");
  EXPECT_EQ(file.text_attribute("/", "ascii"), "size");
  EXPECT_EQ(file.text_attribute("/", "empty"), "");
  EXPECT_EQ(file.text_attribute("/", "none"), "");
  EXPECT_EQ(file.text_attribute("/", "full"), "size");
  EXPECT_EQ(file.text_attribute("/", "zeros"), "größ");
  EXPECT_EQ(file.text_attribute("/", "blanks"), "a b");
  EXPECT_ERROR(file.text_attribute("/", "latin1"), "attribute latin1 of / of");
  EXPECT_ERROR(file.text_attribute("/", "latin1"), "is not UTF-8");
  EXPECT_ERROR(file.text_attribute("/", "number"), "is not a text");
}

TEST(ForeignH5, WholeNumbersOfEveryType) {
  TempDir dir;
  Id const truth(H5Tenum_create(H5T_NATIVE_INT8), &H5Tclose);
  for (int8_t const value : {0, 1}) H5Tenum_insert(truth.get(), value == 0 ? "FALSE" : "TRUE", &value);
  make_file(dir / "t.h5", [&](hid_t file) {
    add_numbers<int64_t>(file, "wide", H5T_STD_I64LE, H5T_NATIVE_INT64, {0, 7, 70000});
    add_numbers<int64_t>(file, "big_endian", H5T_STD_I16BE, H5T_NATIVE_INT64, {-1, 255});
    add_numbers<int64_t>(file, "too_wide", H5T_STD_I64LE, H5T_NATIVE_INT64, {1, int64_t{1} << 40});
    add_numbers<uint64_t>(file, "huge", H5T_STD_U64LE, H5T_NATIVE_UINT64, {~uint64_t{0}});
    add_numbers<int8_t>(file, "truth", truth.get(), truth.get(), {1, 0, 1});
    add_numbers<double>(file, "real", H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, {1, 2});
  });
  File const file(dir / "t.h5", Mode::read);
  EXPECT_THAT(file.integers<int32_t>("/wide"), ElementsAre(0, 7, 70000));
  EXPECT_THAT(file.integers<int64_t>("/big_endian"), ElementsAre(-1, 255));
  EXPECT_THAT(file.integers<uint8_t>("/truth"), ElementsAre(1, 0, 1));
  EXPECT_ERROR(file.integers<int32_t>("/too_wide"), "holds 1099511627776 (int32 expected)");
  EXPECT_ERROR(file.integers<uint8_t>("/big_endian"), "holds -1 (uint8 expected)");
  EXPECT_ERROR(file.integers<int32_t>("/huge"), "holds 9223372036854775807 (int32 expected)");
  EXPECT_ERROR(file.integers<int32_t>("/real"), "holds float64 (whole numbers expected)");
}

ClientShard example() {
  ClientShard shard;
  shard.client_id = 3;
  shard.vocab_size = 90;
  shard.tok_len = 8;
  shard.prompt_template = "plain";
  shard.train.append({1, 2, 3}, {0, 1, 1}, -1);
  return shard;
}

/// The example after somebody changed the file.
ClientShard changed(TempDir const& dir, std::function<void(hid_t)> const& change) {
  write_shard(dir / "s.h5", example());
  {
    Id const file(H5Fopen((dir / "s.h5").c_str(), H5F_ACC_RDWR, H5P_DEFAULT), &H5Fclose);
    change(file.get());
  }
  return read_shard(dir / "s.h5");
}

TEST(ForeignH5, ShardsWithTypesOfOtherPrograms) {
  TempDir dir;
  auto const shard = changed(dir, [](hid_t file) {
    char const* name = "mistral-instruct";
    add_attribute(file, "prompt_template", text_type(H5T_VARIABLE, H5T_CSET_UTF8, H5T_STR_NULLTERM).get(),
                  &name);
    add_numbers<int64_t>(file, "/train/tokens", H5T_STD_I64LE, H5T_NATIVE_INT64, {1, 2, 3});
    add_numbers<int64_t>(file, "/train/target", H5T_STD_I32BE, H5T_NATIVE_INT64, {0, 1, 1});
    add_numbers<int64_t>(file, "/train/offsets", H5T_STD_I32LE, H5T_NATIVE_INT64, {0, 3});
    add_numbers<int64_t>(file, "/train/group", H5T_STD_I64LE, H5T_NATIVE_INT64, {-1});
  });
  EXPECT_EQ(shard.prompt_template, "mistral-instruct");
  EXPECT_EQ(shard.train.tokens, example().train.tokens);
  EXPECT_EQ(shard.train.target, example().train.target);
  EXPECT_EQ(shard.train.offsets, example().train.offsets);
  EXPECT_EQ(shard.train.group, example().train.group);
  EXPECT_ERROR(
      changed(dir,
              [](hid_t file) {
                add_numbers<int64_t>(file, "/train/tokens", H5T_STD_I64LE, H5T_NATIVE_INT64, {1, -2, 3});
              }),
      "token -2 (the vocabulary has 90)");
}

TEST(ForeignH5, FilesThatNameOthersAreRefused) {
  TempDir dir;
  write_shard(dir / "other.h5", example());
  write_file_atomic(dir / "raw", std::string(12, '\1'));
  auto const other = (dir / "other.h5").string(), raw = (dir / "raw").string();
  hsize_t const size = 3;
  auto const replace_tokens = [&](hid_t file, std::function<void(hid_t creation, hid_t space)> const& set) {
    H5Ldelete(file, "/train/tokens", H5P_DEFAULT);
    Id const space(H5Screate_simple(1, &size, nullptr), &H5Sclose);
    Id const creation(H5Pcreate(H5P_DATASET_CREATE), &H5Pclose);
    set(creation.get(), space.get());
    Id const made(H5Dcreate2(file, "/train/tokens", H5T_STD_U32LE, space.get(), H5P_DEFAULT, creation.get(),
                             H5P_DEFAULT),
                  &H5Dclose);
    ASSERT_TRUE(made);
  };
  EXPECT_ERROR(changed(dir,
                       [&](hid_t file) {
                         replace_tokens(file, [&](hid_t creation, hid_t) {
                           H5Pset_external(creation, raw.c_str(), 0, 12);
                         });
                       }),
               "names other files for its values");
  EXPECT_ERROR(changed(dir,
                       [&](hid_t file) {
                         replace_tokens(file, [&](hid_t creation, hid_t space) {
                           H5Pset_virtual(creation, space, other.c_str(), "/train/tokens", space);
                         });
                       }),
               "names other files for its values");
  for (char const* const link : {"/train/tokens", "/train"})
    EXPECT_ERROR(
        changed(dir,
                [&](hid_t file) {
                  H5Ldelete(file, link, H5P_DEFAULT);
                  ASSERT_GE(H5Lcreate_external(other.c_str(), link, file, link, H5P_DEFAULT, H5P_DEFAULT), 0);
                }),
        "it is a link to another file, " + other);
  EXPECT_ERROR(changed(dir,
                       [&](hid_t file) {  // a link to the link
                         H5Ldelete(file, "/train", H5P_DEFAULT);
                         H5Lcreate_external(other.c_str(), "/train", file, "/away", H5P_DEFAULT, H5P_DEFAULT);
                         H5Lcreate_soft("/away", file, "/train", H5P_DEFAULT, H5P_DEFAULT);
                       }),
               "cannot read data set /train/tokens");
  make_file(dir / "s.h5", [&](hid_t file) {
    H5Lcreate_external((dir / "pipe").c_str(), "/x", file, "/x", H5P_DEFAULT, H5P_DEFAULT);
  });
  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  EXPECT_FALSE(File(dir / "s.h5", Mode::read).has_attribute("/x", "a")) << "and the pipe is not opened";
}

}  // namespace
}  // namespace fsllm
