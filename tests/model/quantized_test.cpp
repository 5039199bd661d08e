// SPDX-License-Identifier: Apache-2.0
// Quantised matrices against bitsandbytes (tests/reference/make_quantized_goldens.py).
#include "fsllm/model/quantized.hpp"

#include <ATen/ATen.h>

#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

TensorMap const& golden() {
  static TensorMap const tensors =
      SafetensorsReader(test::source_file("tests/model/quantized.safetensors")).tensors();
  return tensors;
}

class Quantized : public testing::TestWithParam<char const*> {
 protected:
  at::Tensor of(std::string const& part) const { return golden().at(GetParam() + ("." + part)); }
};

/// The bytes of floats, for comparisons with bytes().
at::Tensor raw(at::Tensor const& floats) {
  return floats.contiguous().view({-1}).view(at::kByte);
}

TEST_P(Quantized, Nf4IsThatOfBitsandbytes) {
  QuantizedWeight const weight(of("values"), Quantization::nf4);
  auto const expected =
      at::cat({of("nf4.codes"), of("nf4.absmax"), raw(of("nf4.nested")), raw(of("nf4.offset"))});
  EXPECT_TRUE(at::equal(weight.bytes(), expected));
  EXPECT_TRUE(at::equal(weight.dequantized(), of("nf4.dequantized")));
}

TEST_P(Quantized, Int8IsThatOfBitsandbytes) {
  auto const values = of("values");
  QuantizedWeight const weight(values, Quantization::int8);
  auto const codes = of("int8.codes");
  auto const expected = codes.to(at::kFloat) * of("int8.scales").view({-1, 1});
  EXPECT_TRUE(at::allclose(weight.dequantized(), expected, 1e-6, 1e-30));
  EXPECT_LE((weight.dequantized() - values).abs().max().item<float>(),
            values.abs().max().item<float>() / 250);
}

TEST_P(Quantized, BytesGiveItBack) {
  for (auto const kind : {Quantization::nf4, Quantization::int8}) {
    QuantizedWeight const weight(of("values"), kind);
    auto const bytes = weight.bytes();
    ASSERT_EQ(bytes.numel(), QuantizedWeight::num_bytes(weight.shape(), kind));
    EXPECT_TRUE(at::equal(QuantizedWeight(bytes, weight.shape(), kind).dequantized(), weight.dequantized()));
  }
}

INSTANTIATE_TEST_SUITE_P(Matrices, Quantized, testing::Values("square", "odd", "outliers", "zeros", "many"),
                         [](auto const& test) { return std::string(test.param); });

TEST(Quantized, CodeBooksAreThoseOfBitsandbytes) {
  EXPECT_TRUE(at::equal(nf4_values(), golden().at("nf4_values")));
  EXPECT_TRUE(at::equal(dynamic_map_values(), golden().at("dynamic_map")));
}

TEST(Quantized, PartsAreThoseOfTheWhole) {
  auto const values = golden().at("many.values");
  for (auto const kind : {Quantization::nf4, Quantization::int8}) {
    QuantizedWeight const weight(values, kind);
    auto const whole = weight.dequantized();
    for (auto const& [begin, count] : {std::pair<int64_t, int64_t>{0, 1}, {3, 100}, {257, 1}, {128, 130}})
      EXPECT_TRUE(at::equal(weight.rows(begin, count), whole.narrow(0, begin, count))) << begin;
  }
}

TEST(Quantized, TakesFourBitsAndAnEighth) {
  auto const bytes = [](Quantization kind) {
    return static_cast<double>(QuantizedWeight::num_bytes({4096, 4096}, kind)) / (4096 * 4096);
  };
  EXPECT_LE(bytes(Quantization::nf4), 0.52);
  EXPECT_LE(bytes(Quantization::int8), 1.001);
}

}  // namespace
}  // namespace fsllm
