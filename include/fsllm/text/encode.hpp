// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/text/sample.hpp"
#include "fsllm/text/template.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// Token ids of one sample and which of them are scored.
struct EncodedSample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
};
/// An instruction: prompt + output + EOS, scored behind the prompt's tokens. A chat: see chat_segments. A
/// text: it and EOS, all scored. Token rows are taken as they are and need no tokenizer. Who keeps the first
/// `kept` tokens only gets a prompt that fills them without its answer, which saves the work.
EncodedSample encode_sample(Sample const& sample, PromptTemplate const& prompt, Tokenizer const* tokenizer,
                            int64_t kept = std::numeric_limits<int64_t>::max());
/// Cuts to `tok_len` by the policy `data.truncate` (prompt_left keeps a BOS at the front, and cuts the
/// answer's end only when no prompt is left to cut); `drop` leaves the sample alone. True if it was too long.
bool truncate_sample(EncodedSample& sample, int64_t tok_len, std::string const& policy,
                     std::optional<int32_t> bos);
/// The same for two answers to one prompt, of which both lose what the longer one needs: they still follow
/// the same text. True if either was too long.
bool truncate_pair(EncodedSample& a, EncodedSample& b, int64_t tok_len, std::string const& policy,
                   std::optional<int32_t> bos);

}  // namespace fsllm
