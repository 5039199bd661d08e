// SPDX-License-Identifier: Apache-2.0
// LoRA of which the core R of s B R A is trained alone.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "lora.hpp"
#include "methods.hpp"
#include "random.hpp"

namespace fsllm::detail {

std::string Lora::Site::name_a() const {
  return kPeftPrefix + module + ".lora_A.weight";
}
std::string Lora::Site::name_b() const {
  return kPeftPrefix + module + ".lora_B.weight";
}
std::string Lora::Site::name_core() const {
  return kPeftPrefix + module + ".lora_R.weight";
}

void Lora::train_cores() {
  FSLLM_CHECK(
      !embedding_,
      "federate.lora_aggregation = fedsb: {} is an embedding (cores are those of linear modules alone). "
      "Take it out of target_modules, or use another rule.",
      embedding_module_);
  cores_ = true;
  for (auto& site : sites_) {
    auto& adapter = *site.adapter;
    auto const rank = adapter.a.size(0);
    FSLLM_CHECK(rank <= std::min(adapter.a.size(1), adapter.b.size(0)),
                "federate.lora_aggregation = fedsb: {} has rank {} (its matrix has {} rows and {} columns). "
                "Lower r, or leave that module out.",
                site.module, rank, adapter.b.size(0), adapter.a.size(1));
    adapter.core = trainable({rank, rank}, adapter.a.device());
    at::NoGradGuard const no_grad;
    adapter.core.zero_();
    adapter.a.requires_grad_(false);
    adapter.b.requires_grad_(false);
  }
}

TensorMap Lora::fixed_factors() const {
  TensorMap factors;
  for (auto const& site : sites_)
    if (cores_) {
      factors.emplace(site.name_a(), site.adapter->a);
      factors.emplace(site.name_b(), site.adapter->b);
    }
  return factors;
}

/// For PEFT s B R A is s (B R) A.
TensorMap Lora::file_tensors(TensorMap const& values) const {
  auto files = values;
  for (auto const& site : sites_)
    if (cores_) {
      auto const core = files.extract(site.name_core()).mapped().detach().to(at::kDouble);
      auto const& b = site.adapter->b;
      files.emplace(site.name_a(), site.adapter->a);
      files.emplace(site.name_b(), at::mm(b.to(at::kDouble), core.to(b.device())).to(b.scalar_type()));
    }
  return files;
}

}  // namespace fsllm::detail
