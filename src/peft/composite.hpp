// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// Several methods at once, in different places of the model and under different names.
class Composite final : public Peft {
 public:
  Composite(std::string peft_type, std::vector<std::unique_ptr<Peft>> parts);
  void attach(CausalLM& model) override;
  void detach(CausalLM& model) override;
  TensorMap state() const override;
  void initialize(uint64_t seed) override;
  void merge_into(CausalLM& model) override;
  TensorMap file_tensors(TensorMap const& values) const override;
  /// The keys of all parts, which have no key in common but those that every method has.
  nlohmann::ordered_json adapter_config(std::string const& base_model) const override;

 private:
  std::string peft_type_;
  std::vector<std::unique_ptr<Peft>> parts_;
};

}  // namespace fsllm::detail
