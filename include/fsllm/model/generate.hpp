// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm {

/// One text to continue. The next token is the most likely one, or drawn; in the order of transformers'
/// processors: repetition penalty, temperature, top-k, top-p.
struct GenerateRow {
  std::vector<int32_t> prompt;  ///< at least one token
  int64_t max_tokens = 16;
  double temperature = 0;  ///< 0 is greedy
  uint64_t seed = 0;       ///< for temperature > 0; token i is drawn from (seed, generation, step i)
  int64_t top_k = 0;       ///< draws among the k most likely tokens; 0: all
  /// Draws among the fewest most likely tokens that together have at least this probability, (0, 1].
  double top_p = 1;
  /// Divides the logits of the tokens of prompt and answer where positive, multiplies them where negative
  /// (Keskar et al. 2019, section 4.1); 1: none.
  double repetition_penalty = 1;
  int64_t num_beams = 1;         ///< above 1: beam search, greedy alone, one row at a time
  double length_penalty = 1;     ///< exponent of the length that beams' log-probabilities are divided by
  int64_t top_logprobs = -1;     ///< log-probabilities of new tokens, and of that many best ones; -1: none
  bool prompt_logprobs = false;  ///< the same of the prompt's tokens from the second on
};

/// How likely the model holds a token (natural logarithm, before penalty and temperature), and the most
/// likely ones in its place, best first.
struct TokenLogprobs {
  double logprob = 0;
  std::vector<std::pair<int32_t, double>> top;
};

struct GenerateOptions {
  std::vector<int32_t> stop_ids;  ///< generation of a row ends before these (EOS)
  /// Called after each new token with (row, new ids so far); true ends the row (stop strings).
  std::function<bool(int64_t, std::vector<int32_t> const&)> stop;
  int64_t most_rows = 64;      ///< continued at once
  int64_t most_tokens = 2048;  ///< of prompts in one forward pass, at least one prompt
};

/// Continues all rows in a running batch; returns only the new ids. A prompt longer than the model's
/// positions minus max_tokens is an Error.
std::vector<std::vector<int32_t>> generate(CausalLM& model, std::vector<GenerateRow> const& rows,
                                           GenerateOptions const& options = {});

}  // namespace fsllm
