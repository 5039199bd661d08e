// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <string>

#include "arguments.hpp"
#include "fsllm/model/virtual_tokens.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// What PEFT calls the module that makes virtual tokens.
inline std::string const kPromptEncoder = "prompt_encoder.";

/// Learned tensors, and how virtual tokens come from them.
class PromptEncoder : public VirtualTokens {
 public:
  PromptEncoder(std::string peft_type, int64_t tokens, CausalLM const& model);

  int64_t count() const override { return tokens_; }
  at::Tensor values(Pass const& tokens) override { return prompt(parameters_, tokens); }
  TensorMap const& parameters() const { return parameters_; }
  std::string const& peft_type() const { return peft_type_; }

  /// The virtual tokens that these values of the parameters make, in a pass of theirs (VirtualTokens).
  virtual at::Tensor prompt(TensorMap const& parameters, Pass const& tokens) const = 0;
  virtual void initialize(uint64_t seed) const = 0;
  /// Adds what adapter_config.json says beyond what all prompt-learning methods do.
  virtual void describe(nlohmann::ordered_json& json, std::string const& base_model) const = 0;

 protected:
  void add(std::string const& name, std::vector<int64_t> const& shape);
  void add_uniform(std::string const& name, std::vector<int64_t> const& shape, double bound);
  /// A weight and bias as torch.nn.Linear has them.
  void add_linear(std::string const& name, int64_t in, int64_t out);
  at::Tensor linear(TensorMap const& parameters, std::string const& name, at::Tensor const& x) const;
  /// torch's defaults: N(0, 1) for what add() made, U(±bound) for the rest.
  void draw(uint64_t seed) const;

 private:
  std::string peft_type_;
  int64_t tokens_;
  at::Device device_;
  TensorMap parameters_;
  std::map<std::string, double> bounds_;  ///< of uniform draws
};

/// A method that consists of virtual tokens.
class PromptLearning final : public Peft {
 public:
  PromptLearning(std::shared_ptr<PromptEncoder> encoder, ModelConfig const& model);
  void attach(CausalLM& model) override { model.set_virtual_tokens(encoder_); }
  void detach(CausalLM& model) override { model.set_virtual_tokens(nullptr); }
  TensorMap state() const override { return encoder_->parameters(); }
  void initialize(uint64_t seed) override { encoder_->initialize(seed); }
  void merge_into(CausalLM& model) override;
  /// PEFT keeps one tensor, what the encoder makes of its parameters.
  TensorMap file_tensors(TensorMap const& values) const override;
  nlohmann::ordered_json adapter_config(std::string const& base_model) const override;

 private:
  std::shared_ptr<PromptEncoder> encoder_;
  int64_t token_dim_, heads_, layers_;
};

/// num_virtual_tokens, also into the shared configuration.
int64_t read_virtual_tokens(Arguments& arguments, PeftConfig& shared);
/// encoder_hidden_size; 0: as wide as a virtual token.
int64_t read_encoder_size(Arguments& arguments);

std::any read_prompt(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_prompt(PeftConfig const& config, CausalLM& model);
std::any read_prefix(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_prefix(PeftConfig const& config, CausalLM& model);
std::any read_p_tuning(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_p_tuning(PeftConfig const& config, CausalLM& model);

}  // namespace fsllm::detail
