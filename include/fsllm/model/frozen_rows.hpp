// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

namespace fsllm {

class CausalLM;

/// How many blocks lie below the first thing that learns: their output for a row of tokens never changes.
/// 0 where anything before the blocks learns (embeddings, virtual tokens), or where the model drops values in
/// training.
int64_t frozen_blocks(CausalLM const& model);

/// From now on the blocks that are frozen now compute each row alone, and what leaves them is kept for the
/// next time that the row comes by (in another epoch, round or evaluation), up to `bytes`; rows beyond these
/// are computed again each time. So a row has the same bits whatever batch it stands in and whether it was
/// kept; they differ from those of a whole batch by rounding. 0: off. Passes with a cache or a shared prefix
/// go on as before.
void keep_frozen_rows(CausalLM& model, int64_t bytes);
/// Bytes that are kept now.
int64_t frozen_row_bytes(CausalLM const& model);

}  // namespace fsllm
