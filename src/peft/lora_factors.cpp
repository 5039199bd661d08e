// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>

#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/peft/low_rank.hpp"
#include "fsllm/peft/peft.hpp"
#include "lora.hpp"
#include "methods.hpp"

namespace fsllm {
namespace {

/// How the names of A and B end, of matrices and of embeddings.
std::vector<std::pair<std::string, std::string>> const kEndings = {
    {".lora_A.weight", ".lora_B.weight"}, {".lora_embedding_A", ".lora_embedding_B"}};

detail::LoraOptions options_of(std::filesystem::path const& dir) {
  auto const config = read_adapter_config(dir);
  auto const* lora = std::any_cast<detail::LoraOptions>(&config.options);
  FSLLM_CHECK(lora != nullptr && !lora->dora,
              "{} holds no factors of a product ({}). Give an adapter of LoRA without use_dora.",
              dir.string(), lora == nullptr ? "method " + config.method : "DoRA");
  return *lora;
}

}  // namespace

std::map<std::string, Factors> read_lora_factors(std::filesystem::path const& dir) {
  auto const lora = options_of(dir);
  auto const tensors = SafetensorsReader(dir, "adapter_model").tensors();
  std::map<std::string, Factors> factors;
  for (auto const& [name, a] : tensors)
    for (auto const& [ending_a, ending_b] : kEndings) {
      if (!name.starts_with(detail::kPeftPrefix) || !name.ends_with(ending_a)) continue;
      auto const path = name.substr(0, name.size() - ending_a.size());
      auto const b = tensors.find(path + ending_b);
      FSLLM_CHECK(
          b != tensors.end() && a.dim() == 2 && b->second.dim() == 2 && b->second.size(1) == a.size(0),
          "{}: {} has no B that fits. Export the adapter again.", dir.string(), name);
      auto const module = path.substr(detail::kPeftPrefix.size());
      auto const alpha = detail::number_for(lora.alpha_pattern, module, lora.alpha, "alpha_pattern");
      auto const scale = LowRankSize{a.size(0), alpha, lora.rslora}.scale();
      factors.emplace(module, Factors{b->second.to(at::kDouble).mul(scale), a.to(at::kDouble)});
    }
  FSLLM_CHECK(!factors.empty(), "{}: no factors of LoRA among its tensors. Export the adapter again.",
              dir.string());
  return factors;
}

}  // namespace fsllm
