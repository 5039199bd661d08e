// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/text/splitter.hpp"

namespace fsllm {

void split_iid(SplitInput const& input, SplitPlan& plan);
void split_lda(SplitInput const& input, SplitPlan& plan);
void split_meta(SplitInput const& input, SplitPlan& plan);
void split_natural(SplitInput const& input, SplitPlan& plan);

/// The number of clients that splitter natural makes; an Error if input.client_num says another one (0: any).
int64_t count_owners(SplitInput const& input, SplitPlan const& plan);

}  // namespace fsllm
