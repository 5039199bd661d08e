// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/eval/requests.hpp"
#include "fsllm/eval/scoring.hpp"

namespace fsllm::detail {

/// The fields of one request, checked, with texts made into token ids; every error names the request's place.
class RequestReader {
 public:
  RequestReader(Request const& request, ModelConfig const& config, Tokenizer const* tokenizer);

  std::string const& type() const { return type_; }
  nlohmann::json const& id() const { return json_.at("id"); }

  /// loglikelihood: the context followed by the continuation, which is scored. An empty text context stands
  /// for BOS, or EOS where there is none; spaces at its end go to the continuation (lm-evaluation-harness,
  /// `_encode_pair`).
  ScoredRow continuation() const;
  /// loglikelihood_rolling.
  std::vector<ScoredRow> windows() const;
  /// generate_until: ids to continue, cut from the left so that max_tokens fit.
  std::vector<int32_t> prompt(int64_t max_tokens) const;
  std::vector<std::string> stop_strings() const;
  int64_t integer(char const* key, int64_t fallback) const;
  double number(char const* key, double fallback) const;

 private:
  [[noreturn]] void refuse(std::string const& message) const;
  bool has(char const* key) const { return json_.contains(key); }
  std::string text(char const* key) const;
  std::vector<int32_t> ids(char const* key) const;
  std::vector<int32_t> encode(std::string const& text, bool add_special_tokens) const;
  int32_t prefix_id() const;
  ScoredRow text_continuation() const;

  std::string place_;
  nlohmann::json json_;
  std::string type_;
  ModelConfig const& config_;
  Tokenizer const* tokenizer_;
};

/// Bytes of white space (as Python's str.isspace) at the end of a UTF-8 text.
size_t trailing_space(std::string_view text);

}  // namespace fsllm::detail
