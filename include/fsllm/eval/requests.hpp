// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/eval/continuation.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

struct Request {
  std::string place;  ///< "file:line", for messages
  std::string json;   ///< the request object
};

/// What batches computed, of any share, in any order.
struct RequestResults {
  std::vector<RowScore> scores;
  std::vector<NewToken> tokens;
};

/// lm-evaluation-harness style requests, read, checked and cut into rows.
///   loglikelihood: context + continuation, or context_ids + continuation_ids → loglikelihood, is_greedy,
///   num_tokens
///   loglikelihood_rolling: text, or ids (the first of them is context only) → loglikelihood
///   generate_until: context or context_ids, until (or stop), max_tokens (or max_gen_toks, max_new_tokens;
///   256, at most half of the positions), temperature (0), top_k (0: all), top_p (1), repetition_penalty (1),
///   num_beams (1), length_penalty (1),
///   do_sample, seed (0) → ids of all new tokens before EOS, and text (cut before the first stop string)
///   where there is a tokenizer
/// `id` comes back as it was written. A malformed request, or one with a field that is not among these, is an
/// Error that names its place.
class RequestWork {
 public:
  /// `tokenizer`, which must outlive this, may be null when every request gives ids.
  RequestWork(std::vector<Request> const& requests, ModelConfig const& config, Tokenizer const* tokenizer);

  RequestResults compute(CausalLM& model, int64_t batch_tokens, BatchShare const& share = {}) const;
  /// One JSON object a request, in their order, from the results of all shares.
  std::vector<std::string> answers(RequestResults const& results) const;

 private:
  enum class Kind { scored, rolling, continued };
  struct Item {
    std::string id;  ///< JSON
    Kind kind = Kind::scored;
    size_t first = 0, count = 1;  ///< its rows in scored_ or continued_
  };
  nlohmann::ordered_json score_answer(Item const& item, std::vector<RowScore> const& scores) const;
  nlohmann::ordered_json text_answer(Item const& item, std::vector<int32_t> const& ids) const;

  Tokenizer const* tokenizer_;
  std::vector<Item> items_;
  std::vector<ScoredRow> scored_;
  std::vector<Continuation> continued_;
};

/// All answers of one process.
std::vector<std::string> answer_requests(CausalLM& model, Tokenizer const* tokenizer,
                                         std::vector<Request> const& requests, int64_t batch_tokens = 2048);

}  // namespace fsllm
