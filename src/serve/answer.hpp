// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "choice.hpp"
#include "fsllm/serve/engine.hpp"

namespace fsllm::detail {

/// The answer to one request while it is made: choice i · n + j is the j-th of prompt i.
class Answer {
 public:
  Answer(CompletionRequest request, ServedModel const& model);
  Answer(Answer const&) = delete;

  /// What the engine is to compute, a row a choice. A prompt's j-th choice is drawn with the request's seed
  /// + j: it is the same whatever other prompts the request has.
  std::vector<GenerateRow> rows() const;
  /// Gives the events to their choices; rows that a stop string has ended leave the engine.
  void take(std::vector<NewTokenEvent> events, Generation& generation);
  bool done() const;

  /// The whole answer, once it is done.
  std::string body();
  /// The server-sent events since the last call, "[DONE]" behind the last; "" where there are none.
  std::string next_events();

 private:
  nlohmann::ordered_json frame(char const* object) const;
  nlohmann::ordered_json usage() const;
  nlohmann::ordered_json chunk(size_t index);
  std::string event(nlohmann::ordered_json choices) const;

  CompletionRequest request_;
  ServedModel const& model_;
  std::string id_;
  int64_t created_ = 0;
  std::vector<Choice> choices_;
  std::vector<bool> begun_, ended_;  ///< in the stream
  bool closed_ = false;
};

/// {"error": {...}} as an HTTP body.
std::string error_body(HttpError const& error);
/// JSON as text; bytes that are not UTF-8 become U+FFFD.
std::string dump(nlohmann::ordered_json const& json);

}  // namespace fsllm::detail
