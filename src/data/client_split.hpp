// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/data/splitter.hpp"

namespace fsllm {

constexpr std::vector<int64_t> SplitPlan::Parts::*kParts[] = {
    &SplitPlan::Parts::train, &SplitPlan::Parts::val, &SplitPlan::Parts::test};

void split_iid(SplitInput const& input, SplitPlan& plan);
void split_meta(SplitInput const& input, SplitPlan& plan);
void split_by_owner(SplitInput const& input, SplitPlan& plan);
void split_text_length(SplitInput const& input, SplitPlan& plan);
void split_lda(SplitInput const& input, SplitPlan& plan);
void split_inner_dirichlet(SplitInput const& input, SplitPlan& plan);
void split_pathological(SplitInput const& input, SplitPlan& plan);
void split_quantity(SplitInput const& input, SplitPlan& plan);

/// Client of every row that has one (-1 elsewhere) → plan.clients; where a client would train on nothing, a
/// row of its val or test changes places with one of the client with most.
void hand_out_owned(SplitPlan& plan, std::vector<int64_t> const& owner);

/// The number of clients of the splitters that know it (natural, by_file); an Error if input.client_num says
/// another one (0: any).
int64_t count_owners(SplitInput const& input, SplitPlan const& plan);

}  // namespace fsllm
