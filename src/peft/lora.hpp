// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// y + s · (drop(x) Aᵀ) Bᵀ (Hu et al. 2021, eq. 3) for x [N, in], y [N, out], A [r, in], B [out, r], into y.
/// `keep_mask` [N, in] (bool, may be undefined) holds the inputs that dropout keeps, which are scaled by
/// 1/keep. Saves x, x Aᵀ and the mask; A and B are used in x's type, their gradients have their own.
at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        at::Tensor const& keep_mask, double keep, double scale);

/// LoRA's part of one Linear.
struct LoraAdapter final : LinearAdapter {
  at::Tensor a, b;  ///< [r, in], [out, r], fp32, requires_grad
  double scale = 1, dropout = 0;
  at::Tensor apply(at::Tensor const& x, at::Tensor const& y, Linear const& base,
                   ForwardContext& context) override;
};

/// LoRA on every Linear that a target names.
class Lora final : public Peft {
 public:
  Lora(PeftConfig const& config, CausalLM& model);
  void attach(CausalLM& model) override;
  TensorMap state() const override;
  void initialize(uint64_t seed) override;
  void merge_into(CausalLM& model) override;
  nlohmann::ordered_json adapter_config() const override;

 private:
  struct Site {
    std::string module;
    std::shared_ptr<LoraAdapter> adapter;
  };
  Linear& site_in(CausalLM& model, std::string const& module) const;

  PeftConfig config_;
  bool fan_in_fan_out_ = false;
  std::vector<Site> sites_;  ///< in layer order
};

std::unique_ptr<Peft> make_lora(PeftConfig const& config, CausalLM& model);

/// The names that select modules: as configured, PEFT's defaults for the family, or all for "all-linear";
/// none where a pattern selects.
std::vector<std::string> target_names(PeftConfig const& config, CausalLM& model);

/// PEFT's rule: a module is a target if its path is a name or ends with ".name", or if the whole path matches
/// the pattern. Names and patterns that select nothing are Errors.
std::vector<Linear*> find_targets(PeftConfig const& config, CausalLM& model);

}  // namespace fsllm::detail
