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
  /// As the request wrote it.
  std::string const& id() const { return id_; }

  /// loglikelihood: the context followed by the continuation, which is scored. An empty text context stands
  /// for BOS, or EOS where there is none; spaces at its end go to the continuation (lm-evaluation-harness,
  /// `_encode_pair`).
  ScoredRow continuation() const;
  /// loglikelihood_rolling.
  std::vector<ScoredRow> windows() const;
  /// generate_until: what is to be continued, cut from the left so that its new tokens fit. `default_tokens`
  /// are generated where the request does not say how many.
  GenerateRow generated(int64_t default_tokens) const;
  /// `until`, or OpenAI's `stop`.
  std::vector<std::string> stop_strings() const;

 private:
  [[noreturn]] void refuse(std::string const& message) const;
  bool has(char const* key) const { return json_.contains(key); }
  void refuse_unknown() const;
  /// The one of these names for the same thing that is given, else the first.
  char const* one_of(std::initializer_list<char const*> names) const;
  /// 0 where `do_sample` is false, as transformers reads it.
  double temperature() const;
  int64_t integer(char const* key, int64_t fallback) const;
  double number(char const* key, double fallback) const;
  std::vector<int32_t> prompt(int64_t max_tokens) const;
  std::string text(char const* key) const;
  std::vector<int32_t> ids(char const* key) const;
  Tokenizer const& tokenizer() const;
  int32_t prefix_id() const;
  ScoredRow text_continuation() const;

  std::string place_;
  nlohmann::json json_;
  std::string type_, id_;
  ModelConfig const& config_;
  Tokenizer const* tokenizer_;
};

}  // namespace fsllm::detail
