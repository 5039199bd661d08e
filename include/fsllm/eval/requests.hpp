// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// Answers lm-evaluation-harness style requests (DESIGN: loglikelihood, loglikelihood_rolling,
/// generate_until), a batch at a time. `tokenizer` may be null when every request gives ids. The answer to
/// request i is entry i. A malformed request is an Error that names its "place" (file:line).
struct Request {
  std::string place;
  std::string json;  ///< the request object
};
std::vector<std::string> answer_requests(CausalLM& model, Tokenizer const* tokenizer,
                                         std::vector<Request> const& requests, int64_t batch_tokens = 2048);

}  // namespace fsllm
