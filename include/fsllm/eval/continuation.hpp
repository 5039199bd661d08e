// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/eval/scoring.hpp"
#include "fsllm/model/generate.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// One text to continue, and what ends it beside EOS and max_tokens.
struct Continuation {
  GenerateRow row;
  std::vector<std::string> stops;  ///< need a tokenizer
};

/// A token that a row was continued by; those of one row follow each other.
struct NewToken {
  int64_t row = 0;
  int64_t id = 0;
};

/// Continues rows in running batches of `batch_rows` (0: an eighth of all, 16 to 128), which begin with at
/// most `batch_tokens` prompt tokens at once; the tokens of this share. `tokenizer` may be null where no row
/// has stop strings.
std::vector<NewToken> continue_rows(CausalLM& model, Tokenizer const* tokenizer,
                                    std::vector<Continuation> const& rows, int64_t batch_tokens,
                                    BatchShare const& share = {}, size_t batch_rows = 0,
                                    OnBatch<NewToken> const& on_batch = {});

/// The tokens of each of `rows` rows.
std::vector<std::vector<int32_t>> tokens_by_row(std::vector<NewToken> const& tokens, size_t rows);

/// Whether the text of `ids` holds a stop string, with or without special tokens. Only its end is decoded at
/// first: the rest was looked at when it was shorter.
bool is_stopped(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                std::vector<std::string> const& stops);

/// The text of `ids` without special tokens up to the first stop string, which may be a special token or hold
/// one (lm-evaluation-harness looks for them with special tokens, and drops these afterwards).
std::string text_before_stop(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                             std::vector<std::string> const& stops);

/// The beginning of text_before_stop() that stays whatever tokens follow, for showing a text while it grows:
/// no part of a stop string, nor of a character. Without a stop string in `ids`.
std::string lasting_text(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                         std::vector<std::string> const& stops);

}  // namespace fsllm
