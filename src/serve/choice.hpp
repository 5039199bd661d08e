// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/model/running_batch.hpp"
#include "fsllm/serve/completion_request.hpp"

namespace fsllm::detail {

/// One choice of an answer while its tokens come.
class Choice {
 public:
  Choice(CompletionRequest const& request, ServedModel const& model, ServedPrompt const& prompt);

  /// Events behind the end are passed over.
  void take(NewTokenEvent event);
  bool done() const { return !finish_reason_.empty(); }
  std::string const& finish_reason() const { return finish_reason_; }
  int64_t tokens() const { return tokens_; }

  /// What may be shown of the text and was not yet: all of it when done, else what no later token can change.
  std::string next_text();
  /// The log-probabilities that were not asked for yet, in the form of completions or of chats.
  nlohmann::ordered_json next_logprobs();
  bool has_logprobs() const { return !entries_.empty(); }

 private:
  struct Entry {
    int32_t id = 0;
    std::optional<TokenLogprobs> logprobs;  ///< none: nothing stands before the token
  };
  std::string text() const;
  std::string joint() const;
  void take_prompt(std::vector<TokenLogprobs> logprobs);
  nlohmann::ordered_json completion_logprobs();
  nlohmann::ordered_json chat_logprobs() const;
  int64_t advance(int32_t id);

  CompletionRequest const& request_;
  ServedModel const& model_;
  ServedPrompt const& prompt_;
  std::vector<int32_t> ids_;  ///< without the one that ends the answer
  std::vector<Entry> entries_;
  std::string finish_reason_;
  int64_t tokens_ = 0;       ///< that one too
  size_t shown_ = 0;         ///< bytes of the text
  bool began_ = false;       ///< with echo: the prompt is shown
  int64_t text_offset_ = 0;  ///< code points before the next entry
  bool prompt_taken_ = false;
};

/// The text of one token: its bytes, "bytes:\xe2\x80" where they are no whole characters, "token_id:7" where
/// it has none.
std::string token_text(ServedModel const& model, int32_t id);

}  // namespace fsllm::detail
