// SPDX-License-Identifier: Apache-2.0
// GGUF files as they are written, by the reader of this program.
#include "fsllm/io/gguf_writer.hpp"

#include <ATen/ATen.h>

#include "fsllm/core/error.hpp"
#include "fsllm/io/gguf.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

TEST(GgufWriter, MetadataAndTensorsComeBack) {
  TempDir dir;
  nlohmann::ordered_json const metadata{{"general.architecture", "llama"},
                                        {"count", uint32_t{7}},
                                        {"large", uint64_t{1} << 40},
                                        {"signed", -3},
                                        {"rate", 0.5F},
                                        {"flag", true},
                                        {"texts", {"a", "", "ü"}},
                                        {"types", {1, 3}},
                                        {"none", nlohmann::ordered_json::array()}};
  auto const vector = at::rand({5}), matrix = at::randn({3, 64}), odd = at::randn({2, 7});
  GgufWriter writer(dir / "x.gguf", metadata,
                    {{"vector", "F32", {5}}, {"matrix", "Q8_0", {3, 64}}, {"odd", "F16", {2, 7}}});
  for (auto const& values : {vector, matrix, odd}) writer.write(values);
  writer.commit();
  GgufReader const reader(dir / "x.gguf");
  EXPECT_EQ(reader.metadata(), nlohmann::json(metadata));
  EXPECT_TRUE(at::equal(reader.tensor("vector"), vector));
  EXPECT_TRUE(at::equal(reader.tensor("odd"), odd.to(at::kHalf)));
  // Half a step of the block's scale, and what the scale itself lost in half precision.
  auto const step = matrix.view({3, 2, 32}).abs().amax(-1, true) / 127;
  auto const off = reader.tensor("matrix").sub(matrix).view({3, 2, 32}).abs();
  EXPECT_TRUE((off <= step * 0.57).all().item<bool>());
  EXPECT_EQ(reader.info("matrix").type, "Q8_0");
}

TEST(GgufWriter, ABlockOfZerosStaysZero) {
  std::vector<float> const zeros(32);
  auto const blocks = quantize_q8_0(zeros.data(), 32);
  std::vector<float> values(32, 1);
  dequantize("Q8_0", reinterpret_cast<std::byte const*>(blocks.data()), 32, values.data());
  EXPECT_EQ(values, zeros);
}

TEST(GgufWriter, ValuesThatDoNotFitAreRefused) {
  TempDir dir;
  GgufWriter writer(dir / "x.gguf", {}, {{"w", "F16", {2}}});
  EXPECT_ERROR(writer.write(at::full({2}, 1e6)), "w holds values up to 1e+06 (F16 holds less");
  GgufWriter other(dir / "y.gguf", {}, {{"w", "F32", {2}}});
  EXPECT_ERROR(other.write(at::full({2}, std::numeric_limits<float>::infinity())), "not finite");
}

}  // namespace
}  // namespace fsllm::test
