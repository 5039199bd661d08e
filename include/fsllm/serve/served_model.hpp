// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/text/template.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// What requests can name: the base model, or it with one adapter.
struct ServedModel {
  std::string id;
  std::shared_ptr<Tokenizer const> tokenizer;  ///< null: token ids alone
  std::optional<PromptTemplate> prompt;        ///< of chats; none: chats are refused
  int64_t vocab_size = 0, max_positions = 0;
  std::vector<int32_t> stop_ids;  ///< end an answer
};

/// An adapter to serve.
struct ServedAdapter {
  std::string id;
  std::filesystem::path dir;
};

/// One model in memory and its adapters, of which one at a time is in use.
class ModelWithAdapters {
 public:
  ModelWithAdapters(std::filesystem::path model_dir, LoadOptions const& load);

  /// The base model under this id, or an adapter. Its template is the chat template of the model's files
  /// unless `prompt` names another.
  void add(ServedAdapter const& adapter, std::optional<TemplateConfig> const& prompt);

  std::vector<ServedModel> const& served() const { return served_; }
  /// Puts adapter `index` of served() into the model; not while a pass runs.
  void use(size_t index);
  CausalLM& model() { return *model_; }

 private:
  struct Adapter {
    std::unique_ptr<Peft> peft;  ///< null: the base model
    TensorMap vocabulary;        ///< embeddings that it comes with, or the model's
  };
  std::shared_ptr<Tokenizer const> tokenizer_of(std::filesystem::path const& source);

  std::filesystem::path model_dir_;
  std::unique_ptr<CausalLM> model_;
  TensorMap vocabulary_;  ///< the model's own
  std::vector<Adapter> adapters_;
  std::vector<ServedModel> served_;
  std::vector<std::pair<std::filesystem::path, std::shared_ptr<Tokenizer const>>> tokenizers_;
  size_t used_ = 0;
};

}  // namespace fsllm
