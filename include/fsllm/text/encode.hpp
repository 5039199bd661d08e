// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/text/data_config.hpp"
#include "fsllm/text/sample.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// Token ids of one sample and which of them are scored.
struct EncodedSample {
  std::vector<int32_t> ids;
  std::vector<uint8_t> is_target;
};
/// Prompt + output + EOS; scored is what follows the prompt's tokens. Token rows are taken as they are.
EncodedSample encode_sample(Sample const& sample, DataConfig const& config, Tokenizer const* tokenizer);
/// Cuts to `tok_len` by the policy `data.truncate` (prompt_left keeps a BOS at the front, and cuts the
/// answer's end only when no prompt is left to cut); `drop` leaves the sample alone. True if it was too long.
bool truncate_sample(EncodedSample& sample, int64_t tok_len, std::string const& policy,
                     std::optional<int32_t> bos);

}  // namespace fsllm
