// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/h5.hpp"

#include <limits>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "full_disk.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using h5::File;
using h5::Mode;
using test::FullDisk;
using test::TempDir;
using testing::ElementsAre;

template <class T>
void expect_round_trip(TempDir const& dir, std::string const& type) {
  std::vector<T> const values{std::numeric_limits<T>::lowest(), T(0), T(7), std::numeric_limits<T>::max()};
  {
    File file(dir / "t.h5", Mode::create);
    file.write("/a/b/values", values);
    file.write("/empty", std::vector<T>());
    file.close();
  }
  File const file(dir / "t.h5", Mode::read);
  EXPECT_EQ(file.type_of("/a/b/values"), type);
  EXPECT_EQ(file.length("/a/b/values"), 4);
  EXPECT_EQ(file.read<T>("/a/b/values"), values);
  EXPECT_THAT(file.read<T>("/a/b/values", 1, 2), ElementsAre(T(0), T(7)));
  EXPECT_TRUE(file.read<T>("/empty").empty());
}

TEST(H5, EveryElementTypeRoundTrips) {
  TempDir dir;
  expect_round_trip<uint8_t>(dir, "uint8");
  expect_round_trip<uint16_t>(dir, "uint16");
  expect_round_trip<int32_t>(dir, "int32");
  expect_round_trip<uint32_t>(dir, "uint32");
  expect_round_trip<int64_t>(dir, "int64");
  expect_round_trip<float>(dir, "float32");
  expect_round_trip<double>(dir, "float64");
}

TEST(H5, GroupsAttributesAndTexts) {
  TempDir dir;
  {
    File file(dir / "t.h5", Mode::create);
    file.make_group("/g/b");
    file.make_group("/g/a");
    file.set_attribute("/", "name", std::string("größe"));
    file.set_attribute("/", "name", std::string("second"));
    file.set_attribute("/g", "empty", std::string());
    file.set_attribute("/g", "count", int64_t{-5});
    file.write_text("/text", "a\0b");
    file.close();
  }
  File const file(dir / "t.h5", Mode::read);
  EXPECT_THAT(file.children("/g"), ElementsAre("a", "b"));
  EXPECT_TRUE(file.exists("/") && file.exists("/g/a"));
  EXPECT_FALSE(file.exists("/g/c") || file.exists("/x/y/z"));
  EXPECT_EQ(file.text_attribute("/", "name"), "second");
  EXPECT_EQ(file.text_attribute("/g", "empty"), "");
  EXPECT_EQ(file.int_attribute("/g", "count"), -5);
  EXPECT_FALSE(file.has_attribute("/g", "other") || file.has_attribute("/x", "other"));
  EXPECT_EQ(file.read_text("/text"), "a");
}

TEST(H5, PartsAreWrittenInPlace) {
  TempDir dir;
  File file(dir / "t.h5", Mode::create);
  file.allocate<int32_t>("/v", 5);
  std::vector<int32_t> const low{1, 2}, high{3, 4, 5};
  file.write_at<int32_t>("/v", 2, high);
  file.write_at<int32_t>("/v", 0, low);
  EXPECT_THAT(file.read<int32_t>("/v"), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_ERROR(file.write_at<int32_t>("/v", 3, high), "cannot write data set /v of");
}

TEST(H5, ErrorsNameFileAndObject) {
  TempDir dir;
  auto const path = dir / "t.h5";
  EXPECT_ERROR(File(path, Mode::read),
               "cannot read the file of " + path.string() + " (No such file or directory)");
  EXPECT_ERROR(File(dir / "none" / "t.h5", Mode::create), "cannot write the file of");
  write_file_atomic(dir / "text", "this is no HDF5 file");
  EXPECT_ERROR(File(dir / "text", Mode::read), "(file signature not found)");
  {
    File file(path, Mode::create);
    file.write("/v", std::vector<int32_t>{1, 2, 3});
    file.set_attribute("/", "number", int64_t{1});
    file.set_attribute("/", "text", std::string("x"));
    EXPECT_ERROR(file.write("/v", std::vector<int32_t>{1}), "cannot write data set /v");
    EXPECT_ERROR(file.make_group("/v"), "cannot write group /v");
    EXPECT_ERROR(file.set_attribute("/none", "a", int64_t{1}), "cannot write attribute a of /none");
    file.close();
  }
  File const file(path, Mode::read);
  EXPECT_ERROR(file.read<int32_t>("/w"), "cannot read data set /w of " + path.string());
  EXPECT_ERROR(file.children("/w"), "cannot read group /w");
  EXPECT_ERROR(file.read<int64_t>("/v"), "data set /v of " + path.string() + " holds int32 (int64 expected)");
  EXPECT_ERROR(file.read<int32_t>("/v", 2, 2), "has 3 elements (2 from 2 on are wanted)");
  EXPECT_ERROR(file.read<int32_t>("/v", 0, -1), "has 3 elements (-1 are wanted)");
  EXPECT_ERROR(file.read<int32_t>("/v", 0, 4), "has 3 elements (4 are wanted)");
  EXPECT_ERROR(file.text_attribute("/", "other"), "cannot read attribute other of /");
  EXPECT_ERROR(file.text_attribute("/", "number"), "is not a text");
  EXPECT_ERROR(file.int_attribute("/", "text"), "is not a whole number");
}

TEST(H5, LengthBeyondTheFileIsRefused) {
  TempDir dir;
  File file(dir / "t.h5", Mode::create);
  file.allocate<int64_t>("/ok", 10);
  EXPECT_EQ(file.length("/ok"), 10);
  file.close();
  auto bytes = read_file(dir / "t.h5");
  // The extent of /ok: dimension size and maximum size, 10 each, as 64-bit numbers.
  std::string const ten = std::string("\x0a") + std::string(7, '\0');
  auto const at = bytes.find(ten + ten);
  ASSERT_NE(at, std::string::npos);
  for (size_t i : {5, 13}) bytes[at + i] = '\x10';
  write_file_atomic(dir / "t.h5", bytes);
  EXPECT_ERROR(File(dir / "t.h5", Mode::read).read<int64_t>("/ok"), "more than the file can hold");
}

TEST(H5, SameContentGivesSameBytes) {
  TempDir dir;
  for (std::string name : {"a", "b"}) {
    File file(dir / name, Mode::create);
    file.write("/g/v", std::vector<float>{1, 2});
    file.close();
  }
  auto const bytes = read_file(dir / "a");
  EXPECT_EQ(bytes, read_file(dir / "b"));
  // A modification time would be message 0x0012 of the data set's header, eight bytes long.
  EXPECT_EQ(bytes.find(std::string("\x12\x00\x08\x00", 4)), std::string::npos);
}

TEST(H5, FullDiskShowsInTheWriteOrInTheClose) {
  TempDir dir;
  FullDisk disk(dir.path(), 100000);
  auto const fill = [&](size_t bytes, int groups) {
    File file(disk.path() / "t.h5", Mode::create);
    file.write("/v", std::vector<uint8_t>(bytes, 1));
    for (int i = 0; i < groups; ++i) file.make_group("/g" + std::to_string(i));
    file.close();
  };
  EXPECT_ERROR(fill(1 << 20, 0), "cannot write data set /v of");
  EXPECT_ERROR(fill(60000, 200), "cannot write the end of");
  EXPECT_NO_THROW(fill(50000, 0));
}

}  // namespace
}  // namespace fsllm
