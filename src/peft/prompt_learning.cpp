// SPDX-License-Identifier: Apache-2.0
#include "prompt_learning.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>

#include <cmath>

#include "fsllm/core/error.hpp"
#include "random.hpp"

namespace fsllm::detail {

PromptEncoder::PromptEncoder(std::string peft_type, int64_t tokens, CausalLM const& model)
    : peft_type_(std::move(peft_type)), tokens_(tokens), device_(model.device()) {}

void PromptEncoder::add(std::string const& name, std::vector<int64_t> const& shape) {
  parameters_.emplace(name, trainable(shape, device_));
}

void PromptEncoder::add_uniform(std::string const& name, std::vector<int64_t> const& shape, double bound) {
  add(name, shape);
  bounds_[name] = bound;
}

void PromptEncoder::add_linear(std::string const& name, int64_t in, int64_t out) {
  double const bound = 1 / std::sqrt(static_cast<double>(in));
  add_uniform(name + ".weight", {out, in}, bound);
  add_uniform(name + ".bias", {out}, bound);
}

at::Tensor PromptEncoder::linear(TensorMap const& parameters, std::string const& name,
                                 at::Tensor const& x) const {
  return at::linear(x, parameters.at(name + ".weight"), parameters.at(name + ".bias"));
}

void PromptEncoder::draw(uint64_t seed) const {
  at::NoGradGuard const no_grad;
  uint64_t index = 0;
  for (auto const& [name, tensor] : parameters_) {
    Philox const random(seed, Purpose::adapter_init, 0, 0, index++);
    auto const bound = bounds_.find(name);
    if (bound == bounds_.end())
      fill_normal(tensor, 1, random);
    else
      fill_uniform(tensor, bound->second, random);
  }
}

PromptLearning::PromptLearning(std::shared_ptr<PromptEncoder> encoder, ModelConfig const& model)
    : encoder_(std::move(encoder)),
      token_dim_(model.hidden_size),
      heads_(model.num_heads),
      layers_(model.num_layers) {}

void PromptLearning::merge_into(CausalLM&) {
  fail(
      fmt::format("an adapter of type {} (virtual tokens are input of the model, no weights can hold them). "
                  "Keep base model and adapter apart.",
                  encoder_->peft_type()));
}

TensorMap PromptLearning::file_tensors(TensorMap const& values) const {
  at::NoGradGuard const no_grad;
  return {
      {"prompt_embeddings", encoder_->prompt(values, Pass()).reshape({encoder_->count(), -1}).contiguous()}};
}

nlohmann::ordered_json PromptLearning::adapter_config(std::string const& base_model) const {
  nlohmann::ordered_json json;
  json["peft_type"] = encoder_->peft_type();
  json["task_type"] = "CAUSAL_LM";
  json["inference_mode"] = true;
  json["num_virtual_tokens"] = encoder_->count();
  json["num_transformer_submodules"] = 1;
  json["token_dim"] = token_dim_;
  json["num_attention_heads"] = heads_;
  json["num_layers"] = layers_;
  json["modules_to_save"] = nullptr;
  encoder_->describe(json, base_model);
  return json;
}

int64_t read_virtual_tokens(Arguments& arguments, PeftConfig& shared) {
  arguments.refuse_saved({"tokenizer_kwargs"});
  shared.virtual_tokens = arguments.get<int64_t>(
      "num_virtual_tokens", 20,
      "Learned tokens before every row (prompt, prefix, p-tuning, mam; 30 in mam, unless given).",
      at_least(1));
  return shared.virtual_tokens;
}

int64_t read_encoder_size(Arguments& arguments) {
  return arguments.get<int64_t>("encoder_hidden_size", 0,
                                "Width of the encoder of virtual tokens (prefix with projection, p-tuning; "
                                "800 in mam, unless given); 0: as wide as a token.",
                                at_least(0));
}

}  // namespace fsllm::detail
