// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/model/causal_lm.hpp"

namespace fsllm::detail {

/// Biases of the model that learn: fp32 copies that take their place.
class TrainedBiases {
 public:
  /// Those whose module path (Hugging Face's) `selects`.
  TrainedBiases(CausalLM& model, std::function<bool(std::string const& module)> const& selects);
  TrainedBiases() = default;

  bool empty() const { return biases_.empty(); }
  /// Module path → the live copy.
  TensorMap by_module() const;
  void attach(CausalLM& model) const;
  void detach(CausalLM& model) const;
  /// The model's own values again.
  void initialize() const;
  /// The learned values in the type of the model's.
  void merge_into(CausalLM& model) const;

 private:
  struct Bias {
    std::string parameter, module;
    at::Tensor original, value;
  };
  std::vector<Bias> biases_;
};

}  // namespace fsllm::detail
