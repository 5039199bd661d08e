// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

struct Request {
  std::string place;  ///< "file:line", for messages
  std::string json;   ///< the request object
};

/// Answers lm-evaluation-harness style requests, a batch at a time; the answer to request i is entry i, one
/// JSON object.
///   loglikelihood: context + continuation, or context_ids + continuation_ids → loglikelihood, is_greedy,
///   num_tokens loglikelihood_rolling: text, or ids (the first of them is context only) → loglikelihood
///   generate_until: context or context_ids, until (or stop), max_tokens (or max_gen_toks, max_new_tokens;
///   256, at most half of the positions), temperature (0), do_sample, seed (0) → ids of all new tokens before
///   EOS, and text (cut before the first stop string) where there is a tokenizer
/// `tokenizer` may be null when every request gives ids. `id` comes back as it was written. A malformed
/// request, or one with a field that is not among these, is an Error that names its place.
std::vector<std::string> answer_requests(CausalLM& model, Tokenizer const* tokenizer,
                                         std::vector<Request> const& requests, int64_t batch_tokens = 2048);

}  // namespace fsllm
