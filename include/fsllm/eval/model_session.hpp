// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// A model for scoring and generation, loaded once, and its adapters, of which one is in use, with the
/// embeddings and the tokenizer that it may bring along.
class ModelSession {
 public:
  /// Adapter 0 is none: the model alone, which is in use at first.
  ModelSession(std::filesystem::path model_dir, LoadOptions const& options);

  /// Loads a PEFT folder and puts it into the model; its number.
  size_t add(std::filesystem::path const& adapter);
  /// Puts an adapter into the model in the place of the one before; not while a pass runs.
  void use(size_t adapter);

  CausalLM& model() { return *model_; }
  /// Of the adapter in use; null where neither it nor the model has one.
  std::shared_ptr<Tokenizer const> const& tokenizer() const { return adapters_[used_].tokenizer; }
  /// What ends an answer of the adapter in use.
  std::vector<int32_t> stop_ids() const;

 private:
  struct Adapter {
    std::unique_ptr<Peft> peft;  ///< null: the model alone
    TensorMap vocabulary;        ///< embeddings that it comes with, or the model's
    std::filesystem::path tokenizer_source;
    std::shared_ptr<Tokenizer const> tokenizer;
  };
  std::shared_ptr<Tokenizer const> tokenizer_of(std::filesystem::path const& source) const;

  std::filesystem::path model_dir_;
  std::unique_ptr<CausalLM> model_;
  std::vector<Adapter> adapters_;
  size_t used_ = 0;
};

}  // namespace fsllm
