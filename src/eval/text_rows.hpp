// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>

#include "fsllm/eval/scoring.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm::detail {

/// Bytes of white space (as Python's str.isspace) at the end of a UTF-8 text.
size_t trailing_space(std::string_view text);

/// BOS, or EOS where there is none: what stands for an empty context. A tokenizer without either is an Error.
int32_t prefix_id(Tokenizer const& tokenizer);

/// A context with continuations that are scored behind it (lm-evaluation-harness, `_encode_pair`): spaces at
/// its end go to the continuation; an empty one stands for BOS, or EOS where there is none.
class ScoredContext {
 public:
  ScoredContext(Tokenizer const& tokenizer, std::string context);
  /// Tokens of the context alone.
  int64_t tokens() const { return tokens_; }
  /// The context followed by the continuation, of which the tokens behind the context's are targets.
  ScoredRow row(std::string const& continuation) const;

 private:
  Tokenizer const& tokenizer_;
  std::string text_, spaces_;
  int64_t tokens_ = 0;
};

}  // namespace fsllm::detail
