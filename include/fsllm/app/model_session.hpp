// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// A model for scoring, loaded once, and the adapter in use with the embeddings and the tokenizer that it may
/// bring along.
class ModelSession {
 public:
  ModelSession(std::filesystem::path model_dir, LoadOptions const& options);

  /// Puts a PEFT folder in the place of the adapter before; "": the model alone.
  void use_adapter(std::filesystem::path const& adapter);

  CausalLM& model() { return *model_; }
  /// Null where neither model nor adapter has one.
  Tokenizer const* tokenizer() const { return tokenizer_.get(); }

 private:
  std::filesystem::path model_dir_;
  std::unique_ptr<CausalLM> model_;
  TensorMap vocabulary_;  ///< the model's own embeddings
  std::unique_ptr<Peft> peft_;
  std::filesystem::path tokenizer_source_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

}  // namespace fsllm
