// SPDX-License-Identifier: Apache-2.0
// DPO and its pairwise reward loss against the same loop with transformers + peft
// (make_preference_goldens.py).
#include <ATen/ATen.h>
#include <fmt/core.h>

#include <cmath>

#include "fsllm/io/safetensors.hpp"
#include "preference.hpp"

namespace fsllm::test {
namespace {

struct Case {
  std::string name;
  int np;
};

class PreferenceParity : public testing::TestWithParam<Case> {};

/// Against the same loop with transformers + peft in float64 (make_preference_goldens.py).
TEST_P(PreferenceParity, AdapterAndLossesAgreeWithTransformersAndPeft) {
  auto const [name, np] = GetParam();
  auto const golden = nlohmann::json::parse(read_text(reference_dir("preference") / (name + ".json")));
  auto const number = [&](char const* key) { return golden.at(key).get<double>(); };
  TempDir dir;
  auto small = golden_run(golden);
  std::vector<std::string> const loss{"train.loss", golden.at("loss"), "llm.reward_coeff",
                                      fmt::format("{}", number("beta"))};
  auto const outcome = train_in(dir.path(), small, on_pairs(loss), np);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;

  expect_golden_adapter(reference_dir("preference"), name, small, dir / "run/adapter");
  for (size_t round = 0; round < golden.at("losses").size(); ++round) {
    double const want = golden.at("losses").at(round);
    EXPECT_NEAR(event_of(dir / "run", round).at("train").at("loss_per_pair").get<double>(), want,
                1e-4 * want);
  }

  // All pairs as held-out ones, before training and after it.
  for (std::string const when : {"before", "after"}) {
    auto judged = small;
    if (when == "after") judged.init_from = (dir / "run/adapter").string();
    judged.splits = "[0.08, 0.92, 0.0]";
    judged.steps = judged.batch = 1;
    judged.more.clear();
    auto const again = train_in(
        dir.path(), judged,
        on_pairs({"train.loss", golden.at("loss"), "llm.reward_coeff", fmt::format("{}", number("beta")),
                  "expname", when, "federate.client_num", "1", "data.splitter", "iid", "data.splitter_args",
                  "[]", "federate.total_round_num", "1"}));
    ASSERT_EQ(again.exit_code, 0) << again.err;
    auto const val = event_of(dir / when, 0).at("val");
    auto const learnt = event_of(dir / when, 1).at("train");
    ASSERT_EQ(val.at("rows"), 12);
    ASSERT_EQ(learnt.at("samples"), 1);
    // The pair that is learnt is judged by its first step's loss, log(1 + e^-margin).
    double const first = learnt.at("loss_per_pair"), margin = -std::log(std::expm1(first));
    auto const expect_mean = [&](char const* key, double of_learnt) {
      double const want = golden.at(when).at(key);
      EXPECT_NEAR((12 * val.at(key).get<double>() + of_learnt) / 13, want, 1e-4 * want) << when << key;
    };
    expect_mean("loss_per_pair", first);
    expect_mean("reward_margin", margin);
    expect_mean("reward_accuracy", margin > 0 ? 1 : 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Preference, PreferenceParity,
                         testing::Values(Case{"llama_dpo_sgd", 0}, Case{"llama_dpo_adamw", 2},
                                         Case{"gpt2_reward_sgd", 3}, Case{"qwen2_reward_adamw", 0}),
                         [](auto const& test) { return test.param.name; });

}  // namespace
}  // namespace fsllm::test
