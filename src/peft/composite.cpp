// SPDX-License-Identifier: Apache-2.0
#include "composite.hpp"

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm::detail {

Composite::Composite(std::string peft_type, std::vector<std::unique_ptr<Peft>> parts)
    : peft_type_(std::move(peft_type)), parts_(std::move(parts)) {}

void Composite::attach(CausalLM& model) {
  for (auto const& part : parts_) part->attach(model);
}

void Composite::detach(CausalLM& model) {
  for (auto const& part : parts_) part->detach(model);
}

TensorMap Composite::state() const {
  TensorMap state;
  for (auto const& part : parts_) state.merge(part->state());
  return state;
}

void Composite::initialize(uint64_t seed) {
  for (size_t i = 0; i < parts_.size(); ++i)
    parts_[i]->initialize(derive_seed(seed, Purpose::adapter_init, i));
}

void Composite::merge_into(CausalLM&) {
  fail(
      fmt::format("an adapter of type {} (no weights can hold all of its parts). Keep base model and adapter "
                  "apart.",
                  peft_type_));
}

TensorMap Composite::file_tensors(TensorMap const& values) const {
  TensorMap tensors;
  for (auto const& part : parts_) {
    TensorMap own;
    for (auto const& [name, tensor] : part->state()) own.emplace(name, values.at(name));
    tensors.merge(part->file_tensors(own));
  }
  return tensors;
}

nlohmann::ordered_json Composite::adapter_config(std::string const& base_model) const {
  nlohmann::ordered_json json;
  for (auto const& part : parts_) json.update(part->adapter_config(base_model));
  json["peft_type"] = peft_type_;
  return json;
}

}  // namespace fsllm::detail
