// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/schedule.hpp"

#include "support.hpp"

namespace fsllm {
namespace {

// Values of transformers' get_*_schedule_with_warmup with 2 warm-up steps of 10, at steps 0..9.
struct Case {
  std::string type;
  std::vector<double> factors;
};

TEST(Schedule, AgreesWithTransformers) {
  std::vector<Case> const cases{
      {"constant", {0, 0.5, 1, 1, 1, 1, 1, 1, 1, 1}},
      {"linear", {0, 0.5, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125}},
      {"cosine",
       {0, 0.5, 1, 0.9619397662556434, 0.8535533905932737, 0.6913417161825449, 0.5, 0.30865828381745514,
        0.14644660940672627, 0.03806023374435663}},
  };
  for (auto const& [type, factors] : cases) {
    for (size_t step = 0; step < factors.size(); ++step) {
      EXPECT_NEAR(learning_rate_factor({type, 0.2, 0}, static_cast<int64_t>(step), 10), factors[step], 1e-12)
          << type << step;
      EXPECT_NEAR(learning_rate_factor({type, 0, 2}, static_cast<int64_t>(step), 10), factors[step], 1e-12)
          << type << step;
    }
  }
}

/// Rates of the optimiser at ten steps, with lr 1, as DeepSpeed's own classes set them.
TEST(Schedule, AgreesWithDeepSpeed) {
  struct {
    ScheduleConfig config;
    std::vector<double> factors;
  } const cases[] = {
      {{.type = "WarmupLR", .warmup_steps = 4}, {0, 0, 0.5, 0.792481250360578, 1, 1, 1, 1, 1, 1}},
      {{.type = "WarmupLR", .warmup_steps = 3, .log_warmup = false, .warmup_min_ratio = 0.1},
       {0.1, 0.1, 0.4, 0.7, 1, 1, 1, 1, 1, 1}},
      {{.type = "WarmupDecayLR", .warmup_steps = 3, .warmup_min_ratio = 0.1},
       {0.1, 0.1, 0.667836778214312, 1, 1, 0.82, 0.64, 0.46, 0.28, 0.1}},
      {{.type = "WarmupDecayLR", .warmup_steps = 1, .log_warmup = false},
       {0, 0, 0.5, 1, 0.833333333333333, 0.666666666666667, 0.5, 0.333333333333333, 0.166666666666667, 0}},
      {{.type = "WarmupCosineLR", .warmup_steps = 3, .warmup_min_ratio = 0.1, .cos_min_ratio = 0.01},
       {0, 0.1, 0.667836778214312, 1, 0.905463412215599, 0.657963412215599, 0.352036587784401,
        0.104536587784401, 0.01, 0.104536587784401}},
  };
  for (auto config : cases)
    for (int64_t step = 0; step < 10; ++step) {
      EXPECT_NEAR(learning_rate_factor(config.config, step, 8), config.factors[static_cast<size_t>(step)],
                  1e-14);
      config.config.total_steps = 8;
      EXPECT_NEAR(learning_rate_factor(config.config, step, 3), config.factors[static_cast<size_t>(step)],
                  1e-14);
      config.config.total_steps = 0;
    }
}

TEST(Schedule, WithoutTypeIsConstant) {
  EXPECT_EQ(learning_rate_factor({"", 0, 0}, 7, 10), 1);
}

}  // namespace
}  // namespace fsllm
