// SPDX-License-Identifier: Apache-2.0
// Models whose projections are quantised, against the same model with the values that the codes stand for.
#include <ATen/ATen.h>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using Case = std::tuple<std::string, std::string>;  ///< fixture, storage type

class QuantizedModel : public testing::TestWithParam<Case> {
 protected:
  std::string fixture_ = std::get<0>(GetParam()), type_ = std::get<1>(GetParam());
  Reference reference_ = load_reference(fixture_);
  TempDir dir_;

  double distance(CausalLM& a, CausalLM& b) {
    return (all_logits(a, reference_.rows) - all_logits(b, reference_.rows)).abs().max().item<double>();
  }
};

TEST_P(QuantizedModel, ComputesWithTheValuesOfItsCodes) {
  auto const model = load_model(reference_.dir, {.storage_dtype = type_});
  save_model(dir_ / "plain", *model, reference_.dir, "fp32");
  auto const plain = load_model(dir_ / "plain");
  EXPECT_LE(distance(*model, *plain), 1e-5);
  auto const original = load_model(reference_.dir);
  EXPECT_GT(distance(*model, *original), 1e-4) << "nothing was quantised";
}

TEST_P(QuantizedModel, IsReadFromItsCache) {
  LoadOptions const options{.storage_dtype = type_, .cache_dir = dir_ / "cache"};
  auto const fresh = load_model(reference_.dir, {.storage_dtype = type_});
  load_model(reference_.dir, options);
  auto const cached = load_model(reference_.dir, options);
  EXPECT_EQ(distance(*fresh, *cached), 0);
  for (auto const& entry : fs::directory_iterator(dir_ / "cache")) {
    if (!entry.is_directory()) continue;
    EXPECT_TRUE(entry.path().filename().string().find("-" + type_ + "-") != std::string::npos) << entry;
    for (auto const& [name, tensor] : SafetensorsReader(entry.path()).tensors())
      EXPECT_FALSE(tensor.dim() == 2 && tensor.scalar_type() == at::kFloat) << name;
  }
}

TEST_P(QuantizedModel, HasItsShapesWithoutValues) {
  auto const model = load_model(reference_.dir, {.storage_dtype = type_, .values = false});
  for (auto const* linear : model->linears()) {
    EXPECT_TRUE(linear->quantized) << linear->name;
    EXPECT_GT(linear->in_features() * linear->out_features(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Fixtures, QuantizedModel,
                         testing::Combine(testing::Values("llama", "gpt2", "qwen2", "opt_350m"),
                                          testing::Values("nf4", "int8")),
                         [](auto const& test) {
                           return std::get<0>(test.param) + "_" + std::get<1>(test.param);
                         });

}  // namespace
}  // namespace fsllm::test
