// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/serve/served_model.hpp"

namespace fsllm {

/// What an HTTP client is told: a status and {"error": {"message", "type", "param", "code"}}.
class HttpError : public std::runtime_error {
 public:
  HttpError(int status_, std::string const& message, std::string param_ = "", std::string code_ = "")
      : std::runtime_error(message), status(status_), param(std::move(param_)), code(std::move(code_)) {}
  int status;
  std::string param;  ///< the field of the request; "": none
  std::string code;   ///< OpenAI's name for it; "": none
};

struct ServedPrompt {
  std::string text;  ///< as given; ids decoded
  std::vector<int32_t> ids;
};

/// A request of POST /v1/completions or /v1/chat/completions, checked, with texts made into token ids.
struct CompletionRequest {
  bool chat = false;
  size_t model = 0;  ///< index of the served model
  std::vector<ServedPrompt> prompts;
  int64_t n = 1;  ///< choices a prompt
  int64_t max_tokens = 16;
  double temperature = 1, top_p = 1, repetition_penalty = 1;
  int64_t top_k = 0;                ///< 0: all
  uint64_t seed = 0;                ///< drawn where the request has none
  std::optional<int64_t> logprobs;  ///< with this many of the best tokens
  bool echo = false, stream = false, include_usage = false;
  std::vector<std::string> stops;
};

/// Bodies that are not what OpenAI's reference (and vLLM's top_k and repetition_penalty beside) says, and
/// fields that would have an effect which is not there, are HttpErrors.
CompletionRequest parse_completion_request(std::string_view body, std::vector<ServedModel> const& models);
CompletionRequest parse_chat_request(std::string_view body, std::vector<ServedModel> const& models);

}  // namespace fsllm
