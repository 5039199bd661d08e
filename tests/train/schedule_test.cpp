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

TEST(Schedule, WithoutTypeIsConstant) {
  EXPECT_EQ(learning_rate_factor({"", 0, 0}, 7, 10), 1);
}

}  // namespace
}  // namespace fsllm
