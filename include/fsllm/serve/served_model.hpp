// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/eval/model_session.hpp"
#include "fsllm/text/template.hpp"

namespace fsllm {

/// What requests can name: the base model, or it with one adapter.
struct ServedModel {
  std::string id;
  size_t adapter = 0;                          ///< in the session
  std::shared_ptr<Tokenizer const> tokenizer;  ///< null: token ids alone
  std::optional<PromptTemplate> prompt;        ///< of chats; none: chats are refused
  int64_t vocab_size = 0, max_positions = 0;
  std::vector<int32_t> stop_ids;  ///< end an answer
};

/// An adapter to serve; without a folder the model alone.
struct ServedAdapter {
  std::string id;
  std::filesystem::path dir;
};

/// Loads an adapter for requests that name it. Its template is the chat template in the files of `model_dir`
/// unless `prompt` names another.
ServedModel serve_adapter(ModelSession& session, ServedAdapter const& adapter,
                          std::filesystem::path const& model_dir,
                          std::optional<TemplateConfig> const& prompt);

}  // namespace fsllm
