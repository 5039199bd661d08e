// SPDX-License-Identifier: Apache-2.0
// GGUF files of the Python package gguf (tests/reference/make_gguf_fixtures.py), and broken ones.
#include "fsllm/io/gguf.hpp"

#include <ATen/ATen.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "gguf_builder.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr uint32_t kU32 = 4, kBool = 7, kText = 8, kArray = 9;
constexpr uint32_t kF32 = 0, kQ4_0 = 2, kQ2_K = 10;

std::filesystem::path fixture(std::string const& name) {
  return source_file("tests/reference/gguf/" + name);
}

TEST(Gguf, EveryTypeIsReadAsThePythonPackageDoes) {
  GgufReader const reader(fixture("blocks.gguf"));
  auto const expected = SafetensorsReader(fixture("blocks.safetensors")).tensors();
  ASSERT_EQ(expected.size(), 11U);
  for (auto const& [name, values] : expected) {
    auto const read = reader.tensor(name);
    EXPECT_EQ(read.sizes(), values.sizes()) << name;
    EXPECT_TRUE(at::equal(read.to(at::kFloat), values)) << name;
    EXPECT_EQ(reader.info(name).type, name);
  }
  EXPECT_EQ(reader.tensors().size(), expected.size());
}

TEST(Gguf, UnquantisedTensorsAreViewsOfTheFile) {
  GgufReader const reader(fixture("blocks.gguf"));
  EXPECT_EQ(reader.tensor("F16").const_data_ptr(), reader.tensor("F16").const_data_ptr());
  EXPECT_NE(reader.tensor("Q8_0").const_data_ptr(), reader.tensor("Q8_0").const_data_ptr());
  EXPECT_EQ(reader.tensor("F16").scalar_type(), at::kHalf);
  EXPECT_EQ(reader.tensor("BF16").scalar_type(), at::kBFloat16);
  EXPECT_EQ(reader.element_type("Q4_K"), "F32");
}

TEST(Gguf, AFileIsReadOnceWhileAReaderOfItLives) {
  TempDir dir;
  auto const file = dir / "x.gguf";
  std::filesystem::copy_file(fixture("blocks.gguf"), file);
  GgufReader const first(file);
  EXPECT_EQ(&GgufReader(file).metadata(), &first.metadata());
  std::filesystem::rename(file, dir / "old.gguf");
  std::ofstream(file) << GgufBuilder().header(0, 1).text("general.name").number(kText).text("other").bytes();
  EXPECT_EQ(GgufReader(file).metadata().at("general.name"), "other");
  EXPECT_EQ(first.metadata(), read_json(fixture("blocks.json")));
  std::filesystem::remove(file);
  EXPECT_THROW(GgufReader{file}, Error);
}

TEST(Gguf, MetadataOfEveryTypeIsReadAsThePythonPackageDoes) {
  GgufReader const reader(fixture("blocks.gguf"));
  EXPECT_EQ(reader.metadata(), read_json(fixture("blocks.json")));
}

/// Opens the bytes as a file.
void open(GgufBuilder const& builder) {
  TempDir dir;
  std::ofstream(dir / "x.gguf") << builder.bytes();
  GgufReader const reader(dir / "x.gguf");
  for (auto const& [name, _] : reader.tensors()) reader.tensor(name);
}

GgufBuilder good_tensor() {
  GgufBuilder builder;
  builder.header(1, 0).tensor("w", {4, 2}, kF32, 0).pad().data(32);
  return builder;
}

/// One part of a split model with one tensor.
std::string part(uint16_t number, uint16_t count, std::string const& tensor, int32_t tensors = 2) {
  GgufBuilder builder;
  builder.header(1, 3).key("split.no", 2).number(number).key("split.count", 2).number(count);
  builder.key("split.tensors.count", 5).number(tensors).tensor(tensor, {4, 2}, kF32, 0).pad().data(32);
  return builder.bytes();
}

TEST(Gguf, PartsOfASplitModelAreReadTogether) {
  TempDir dir;
  auto const first = dir / "m-00001-of-00002.gguf", second = dir / "m-00002-of-00002.gguf";
  write_file_atomic(first, part(0, 2, "a"));
  EXPECT_ERROR(GgufReader{first}, "m-00001-of-00002.gguf: part 1 of 2 of a split model (there is no");
  write_file_atomic(second, part(1, 2, "b"));
  GgufReader const whole(first);
  EXPECT_EQ(whole.tensor("a").numel() + whole.tensor("b").numel(), 16);
  EXPECT_EQ(whole.files(), (std::vector{first, second}));
  EXPECT_ERROR(GgufReader{second}, "part 2 of 2 of a split model. Give its first part");
  std::filesystem::copy_file(first, dir / "renamed.gguf");
  EXPECT_ERROR(GgufReader(dir / "renamed.gguf"), "names that end in -00001-of-00002.gguf");
  write_file_atomic(second, part(1, 2, "a"));
  EXPECT_ERROR(GgufReader{first}, "the tensor 'a' stands in another part too");
  write_file_atomic(second, part(0, 2, "b"));
  EXPECT_ERROR(GgufReader{first}, "not part 2 of 2 (it says part 1 of 2)");
  write_file_atomic(second, part(1, 2, "b", 3));
  write_file_atomic(first, part(0, 2, "a", 3));
  EXPECT_ERROR(GgufReader{first}, "2 tensors in all parts (split.tensors.count is 3)");
  write_file_atomic(dir / "alone.gguf", part(0, 1, "a"));
  EXPECT_NO_THROW(GgufReader(dir / "alone.gguf"));
}

TEST(Gguf, VersionTwoIsRead) {
  EXPECT_NO_THROW(open(good_tensor()));
  EXPECT_NO_THROW(open(GgufBuilder().header(1, 0, 2).tensor("w", {4, 2}, kF32, 0).pad().data(32)));
}

TEST(Gguf, OtherVersionsAreRefused) {
  EXPECT_ERROR(open(GgufBuilder().header(0, 0, 1)), "it has version 1; this program reads 2 and 3");
  EXPECT_ERROR(open(GgufBuilder().header(0, 0, 0x03000000)), "big-endian");
  EXPECT_ERROR(open(GgufBuilder().text("safetensors")), "it does not begin with GGUF");
  EXPECT_ERROR(open(GgufBuilder()), "x.gguf is not a valid GGUF file");
}

TEST(Gguf, EveryCutIsAnError) {
  auto const bytes = read_file(fixture("blocks.gguf"));
  TempDir dir;
  for (size_t size = 0; size < bytes.size(); size += size < 300 ? 1 : 37) {
    std::ofstream(dir / "cut.gguf") << std::string_view(bytes).substr(0, size);
    EXPECT_THROW(GgufReader(dir / "cut.gguf"), Error) << size;
  }
}

TEST(Gguf, ImpossibleMetadataIsRefused) {
  auto const huge = uint64_t{1} << 60;
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).number(huge)), "metadata key 0 has 1152921504606846976 bytes");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("k", kText).number(huge)), "'k' at byte");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("k", 13)), "'k' has the unknown type 13");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("k", kBool).number<uint8_t>(2)),
               "'k' is a boolean with the value 2");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("k", kArray).number(kU32).number(huge)),
               "'k' claims 1152921504606846976 elements");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("k", kArray).number(uint32_t{77}).number(huge)),
               "'k' is an array of the unknown type 77");
  EXPECT_ERROR(open(GgufBuilder().header(0, 2).key("k", kU32).number(1).key("k", kU32).number(1)),
               "it names 'k' twice");
  EXPECT_ERROR(open(GgufBuilder().header(0, 1).key("general.alignment", kU32).number(24)),
               "general.alignment is 24, not a power of two");
  GgufBuilder deep;
  deep.header(0, 1).key("k", kArray);
  for (int i = 0; i < 20; ++i) deep.number(kArray).number(uint64_t{1});
  EXPECT_ERROR(open(deep.data(64)), "'k' nests more than 8 arrays");
}

TEST(Gguf, ImpossibleTensorsAreRefused) {
  auto const tensor = [](std::vector<uint64_t> const& shape, uint32_t type, uint64_t offset) {
    GgufBuilder builder;
    builder.header(1, 0).tensor("w", shape, type, offset).pad().data(64);
    return builder;
  };
  auto const big = uint64_t{1} << 62;
  EXPECT_ERROR(open(tensor({1, 1, 1, 1, 1}, kF32, 0)), "'w' has 5 dimensions");
  EXPECT_ERROR(open(tensor({4, 0}, kF32, 0)), "'w' has a dimension of 0");
  EXPECT_ERROR(open(tensor({4, big, 8}, kF32, 0)), "'w' is too large");
  EXPECT_ERROR(open(tensor({big}, kF32, 0)), "'w' is too large");
  EXPECT_ERROR(open(tensor({4}, 99, 0)), "'w' has the unknown type 99");
  EXPECT_ERROR(open(tensor({48}, kQ4_0, 0)), "'w' has rows of 48 elements, Q4_0 has blocks of 32");
  EXPECT_ERROR(open(tensor({4}, kF32, 8)), "'w' lies at 8, not a multiple of 32");
  EXPECT_ERROR(open(tensor({4}, kF32, 64)), "'w' ends beyond the file's 128 bytes; is it cut short?");
  EXPECT_ERROR(open(tensor({4}, kF32, uint64_t{1} << 61)), "'w' ends beyond");
  EXPECT_ERROR(open(tensor({256}, kQ2_K, 0).data(64)),
               "tensor 'w' has type Q2_K (not a type that this version");
  GgufBuilder overlap;
  overlap.header(2, 0).tensor("a", {16}, kF32, 0).tensor("b", {16}, kF32, 32).pad().data(128);
  EXPECT_ERROR(open(overlap), "'a' overlaps 'b'");
  GgufBuilder twice;
  twice.header(2, 0).tensor("a", {8}, kF32, 0).tensor("a", {8}, kF32, 32).pad().data(64);
  EXPECT_ERROR(open(twice), "it names the tensor 'a' twice");
}

TEST(Gguf, ANameThatIsNotThereIsMetWithTheNearest) {
  EXPECT_ERROR(GgufReader(fixture("llama.gguf")).tensor("token_embed.weight"),
               "Did you mean 'token_embd.weight'?");
}

TEST(Checksum, IsXxh64) {
  auto const of = [](std::string_view text) { return checksum64(std::as_bytes(std::span(text))); };
  EXPECT_EQ(of(""), 0xEF46DB3751D8E999U);
  EXPECT_EQ(of("a"), 0xD24EC4F1A98C6E5BU);
  EXPECT_EQ(of("abc"), 0x44BC2CF5AD770999U);
  EXPECT_EQ(of("Nobody inspects the spammish repetition"), 0xFBCEA83C8A378BF1U);
}

}  // namespace
}  // namespace fsllm::test
