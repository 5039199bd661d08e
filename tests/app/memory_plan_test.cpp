// SPDX-License-Identifier: Apache-2.0
#include "memory_plan.hpp"

#include <gtest/gtest.h>

namespace fsllm {
namespace {

/// Rajbhandari et al. 2020, figure 1: 7.5 billion parameters, mixed precision with Adam, 64 ranks.
TEST(MemoryPlan, StagesOfZeroTakeWhatThePaperSays) {
  StateBytes const mixed{2, 2, 12};
  double const numbers = 7.5, wanted[] = {120, 31.4, 16.6, 1.9};
  for (int stage = 0; stage < 4; ++stage)
    EXPECT_NEAR(numbers * over_group(mixed, 64, stage).sum(), wanted[stage], 0.05) << stage;
  EXPECT_EQ(over_group(mixed, 1, 3).sum(), 16);
  EXPECT_EQ(over_group({}, 4, 1).sum(), 4 + 4 + 2);
}

TEST(MemoryPlan, AddsUpWhatIsThereAtOnce) {
  PlanInput in;
  in.process = 100;
  in.mapped = 1000;
  in.parameters = 10;
  in.messages = in.server_numbers = 10;
  in.activations = 500;
  in.loss = 50;
  in.ranks_on_node = 4;
  auto const plan = plan_memory(in);
  double const own = 100 + 10 * (4 + 8) + 40 + 80 + 40 + 500 + 50;
  EXPECT_EQ(plan.rank, own + 1000);
  EXPECT_EQ(plan.node, 4 * own + 1000);
  EXPECT_EQ(plan.up, 80);
  EXPECT_EQ(plan.down, 40);
  in.activations = in.loss = 0;
  in.each.gradients = 0;
  EXPECT_EQ(plan_memory(in).rank, own + 1000 - 500 - 50 - 40)
      << "no gradients; the update comes when the optimiser has gone";
  in.full_model = true;
  EXPECT_EQ(plan_memory(in).rank, 100 + 1000 + 40) << "the moment of loading";
}

}  // namespace
}  // namespace fsllm
