// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/safetensors.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/zeros.h>

#include <cstring>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "full_disk.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using test::FullDisk;
using test::TempDir;
using testing::ElementsAre;

bool same_bits(at::Tensor const& a, at::Tensor const& b) {
  auto const x = a.contiguous(), y = b.contiguous();
  return x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes() &&
         (x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0);
}

TensorMap every_type() {
  TensorMap map;
  auto const values = at::arange(6, at::kFloat).sub(2.5).view({2, 3});
  for (auto type : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2,
                    at::kLong, at::kInt, at::kShort, at::kChar, at::kByte, at::kBool})
    map.emplace(std::string("t.") + c10::toString(type), values.to(at::kInt).abs().to(type));
  map.emplace("scalar", at::scalar_tensor(0.1, at::kDouble));
  map.emplace("empty", at::empty({0, 4}, at::kFloat));
  map.emplace("transposed", values.t());
  map.emplace("nan", at::full({3}, std::nan(""), at::kFloat));
  return map;
}

/// A file with this header text and `data_bytes` zeros.
void write_raw(std::filesystem::path const& path, std::string const& header, size_t data_bytes) {
  uint64_t const length = header.size();
  write_file_atomic(
      path, std::string(reinterpret_cast<char const*>(&length), 8) + header + std::string(data_bytes, '\0'));
}

TEST(Safetensors, EveryTypeRoundTripsBitwise) {
  TempDir dir;
  auto const map = every_type();
  write_safetensors(dir / "a.safetensors", map);
  SafetensorsReader const reader(dir / "a.safetensors");
  EXPECT_EQ(reader.names().size(), map.size());
  for (auto const& [name, tensor] : reader.tensors()) {
    EXPECT_TRUE(same_bits(tensor, map.at(name))) << name;
    EXPECT_EQ(reader.shape(name), tensor.sizes().vec());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % tensor.element_size(), 0u);
  }
  EXPECT_EQ(reader.dtype("t.BFloat16"), "BF16");
  EXPECT_EQ(reader.metadata().at("format"), "pt");
  EXPECT_EQ(reader.file_of("nan"), (dir / "a.safetensors").string());
  EXPECT_TRUE(reader.contains("nan"));
  EXPECT_FALSE(reader.contains("none"));
}

TEST(Safetensors, NoTensorsAndNoMetadata) {
  TempDir dir;
  write_safetensors(dir / "a.safetensors", {}, {});
  EXPECT_TRUE(SafetensorsReader(dir / "a.safetensors").names().empty());
  EXPECT_EQ(std::filesystem::file_size(dir / "a.safetensors"), 64u);
}

TEST(Safetensors, ViewsOutliveTheReaderAndShareTheMapping) {
  TempDir dir;
  write_safetensors(dir / "a.safetensors", {{"w", at::arange(1000, at::kFloat)}});
  at::Tensor first, second;
  {
    SafetensorsReader const reader(dir / "a.safetensors");
    first = reader.tensor("w");
    second = reader.tensor("w");
  }
  std::filesystem::remove(dir / "a.safetensors");
  EXPECT_EQ(first.const_data_ptr(), second.const_data_ptr());
  EXPECT_EQ(first.sum().item<float>(), 499500.0f);
}

TEST(Safetensors, UnalignedTensorsAreCopied) {
  TempDir dir;
  std::string header = R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  while (header.size() % 4 != 1) header += ' ';
  write_raw(dir / "a", header, 8);
  auto const tensor = SafetensorsReader(dir / "a").tensor("w");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.const_data_ptr()) % 4, 0u);
  EXPECT_TRUE(same_bits(tensor, at::zeros({2})));
}

TEST(Safetensors, FolderWithShards) {
  TempDir dir;
  write_safetensors(dir / "m-1.safetensors", {{"a", at::ones({2})}, {"unlisted", at::ones({1})}});
  write_safetensors(dir / "m-2.safetensors", {{"b", at::zeros({3})}});
  auto const index = dir / "model.safetensors.index.json";
  write_file_atomic(index, R"({"metadata":{},"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}})");
  SafetensorsReader const reader(dir.path());
  EXPECT_THAT(reader.names(), ElementsAre("a", "b"));
  EXPECT_EQ(reader.file_of("b"), (dir / "m-2.safetensors").string());

  write_file_atomic(index, R"({"weight_map":{"b":"m-1.safetensors"}})");
  EXPECT_ERROR(SafetensorsReader(dir.path()), "says that 'b' lies in m-1.safetensors (it does not)");
  for (std::string evil : {"../m-1.safetensors", "/etc/passwd", "..", ".", "", "a/m.safetensors"}) {
    write_file_atomic(index, R"({"weight_map":{"b":")" + evil + "\"}}");
    EXPECT_ERROR(SafetensorsReader(dir.path()), "'b' lies in '" + evil + "' (outside the folder)");
  }
  write_file_atomic(index, R"({"weight_map":{"b":1}})");
  EXPECT_ERROR(SafetensorsReader(dir.path()), "the file of 'b' is not a text");
  write_file_atomic(index, "{}");
  EXPECT_ERROR(SafetensorsReader(dir.path()), "has no weight_map");
  write_file_atomic(index, R"({"weight_map":{"b":"m-3.safetensors"}})");
  EXPECT_ERROR(SafetensorsReader(dir.path()), "m-3.safetensors (No such file or directory)");

  write_safetensors(dir / "adapter_model.safetensors", {{"lora", at::ones({1})}});
  EXPECT_THAT(SafetensorsReader(dir.path(), "adapter_model").names(), ElementsAre("lora"));
}

TEST(Safetensors, MissingFilesAndNames) {
  TempDir dir;
  EXPECT_ERROR(SafetensorsReader(dir.path()),
               "holds neither model.safetensors nor model.safetensors.index.json");
  EXPECT_ERROR(SafetensorsReader(dir / "none"), "cannot read " + (dir / "none").string());
  write_safetensors(dir / "a", {{"model.weight", at::ones({1})}});
  SafetensorsReader const reader(dir / "a");
  EXPECT_ERROR(reader.tensor("model.weigth"), "has no tensor 'model.weigth'. Did you mean 'model.weight'?");
  EXPECT_ERROR(reader.shape("x"), "has no tensor 'x'");
}

struct BrokenHeader {
  std::string header;
  size_t data_bytes;
  std::string message;
};

TEST(Safetensors, EveryBrokenHeaderHasItsMessage) {
  TempDir dir;
  std::vector<BrokenHeader> const cases{
      {"[]", 0, "its header is not a JSON object"},
      {"{", 0, "its header is not JSON"},
      {"{\"a\":\"\xff\"}", 0, "its header is not JSON"},
      {std::string(100000, '['), 0, "its header is not JSON"},
      {R"({"a":1e999})", 0, "number overflow"},
      {R"({"a":5})", 0, "'a' is not an object"},
      {R"({"a":{"shape":[1],"data_offsets":[0,4]}})", 4, "'a' has no valid dtype"},
      {R"({"a":{"dtype":3,"shape":[1],"data_offsets":[0,4]}})", 4, "'a' has no valid dtype"},
      {R"({"a":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}})", 4, "'a' has the unknown dtype Q4"},
      {R"({"a":{"dtype":"F32","data_offsets":[0,4]}})", 4, "'a' has no valid shape"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4,
       "a dimension of 'a' is not a natural number"},
      {R"({"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "a dimension of 'a'"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "a dimension of 'a'"},
      {R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]}})", 4,
       "a dimension of 'a'"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "do not fit its shape"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "'a' has no valid data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "'a' has no two data_offsets"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,-4]}})", 4,
       "an offset of 'a' is not a natural number"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4,
       "'a' has offsets 4 to 0, which do not fit"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4,
       "'a' has offsets 0 to 4, which do not fit"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4,
       "'a' ends at 8, beyond the data's 4 bytes"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8,
       "its tensors take 4 bytes, its data 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8,
       "'a' begins at 4 and the tensor before it ends at 0"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12, "'b' begins at 4 although the tensor before it ends at 8"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})",
       4, "the header names 'a' twice"},
      {R"({"a":{"dtype":"F32","dtype":"I32","shape":[1],"data_offsets":[0,4]}})", 4,
       "the header names 'dtype' twice"},
      {R"({"__metadata__":{"a":1}})", 0, "__metadata__ is not a map of texts"},
      {R"({"__metadata__":[]})", 0, "__metadata__ is not a map of texts"},
  };
  for (auto const& broken : cases) {
    write_raw(dir / "x.safetensors", broken.header, broken.data_bytes);
    EXPECT_ERROR(SafetensorsReader(dir / "x.safetensors"), broken.message);
  }
}

TEST(Safetensors, HeaderLengthIsBounded) {
  TempDir dir;
  write_file_atomic(dir / "x", "1234567");
  EXPECT_ERROR(SafetensorsReader(dir / "x"), "x is not a valid safetensors file (it has only 7 bytes)");
  write_file_atomic(dir / "x", std::string("\x03\0\0\0\0\0\0\0{}", 10));
  EXPECT_ERROR(SafetensorsReader(dir / "x"), "its header claims 3 bytes of 10");
  write_file_atomic(dir / "x", std::string(8, '\xff') + "{}");
  EXPECT_ERROR(SafetensorsReader(dir / "x"), "its header claims 18446744073709551615 bytes of 10");
}

TEST(Safetensors, UnnamedTypesAndFullDisksAreErrors) {
  TempDir dir;
  EXPECT_ERROR(write_safetensors(dir / "x", {{"z", at::zeros({1}, at::kComplexFloat)}}),
               "tensor z has element type ComplexFloat");
  FullDisk disk(dir.path(), 100000);
  EXPECT_ERROR(write_safetensors(disk.path() / "x", {{"w", at::zeros({100000})}}),
               "cannot write " + (disk.path() / "x").string());
  EXPECT_TRUE(std::filesystem::is_empty(disk.path()));
}

TEST(Safetensors, RealModel) {
  FSLLM_NEED_TEST_DATA("models/stories260K/model.safetensors");
  SafetensorsReader const reader(test::test_data("models/stories260K"));
  for (auto const& [name, tensor] : reader.tensors())
    EXPECT_TRUE(at::isfinite(tensor).all().item<bool>()) << name;
  EXPECT_TRUE(reader.contains("model.embed_tokens.weight"));
}

}  // namespace
}  // namespace fsllm
