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
  SmallRun small;
  small.model = golden.at("model");
  small.init_from = (reference_dir(small.model) / "adapter").string();
  small.optimizer =
      fmt::format("{{type: {}, lr: {}{}}}", golden.at("optimizer").get<std::string>(), number("lr"),
                  golden.at("optimizer") == "AdamW" ? ", weight_decay: 0.01" : "");
  small.rounds = golden.at("rounds");
  small.steps = golden.at("steps");
  small.batch = golden.at("batch");
  small.more = fmt::format("grad: {{grad_accum_count: {}, grad_clip: {}}}\n",
                           golden.at("accumulation").get<int>(), number("clip"));
  std::vector<std::string> const loss{"train.loss", golden.at("loss"), "llm.reward_coeff",
                                      fmt::format("{}", number("beta"))};
  auto const outcome = train_in(dir.path(), small, on_pairs(loss), np);
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;

  SafetensorsReader const expected(reference_dir("preference") / (name + ".safetensors"));
  SafetensorsReader const start(reference_dir(small.model) / "adapter", "adapter_model");
  SafetensorsReader const actual(dir / "run/adapter", "adapter_model");
  ASSERT_EQ(actual.names(), expected.names());
  double worst = 0;
  for (auto const& tensor : expected.names()) {
    auto const want = expected.tensor(tensor).to(at::kDouble), got = actual.tensor(tensor).to(at::kDouble);
    auto const moved = (want - start.tensor(tensor).to(at::kDouble)).norm().item<double>();
    EXPECT_GT(moved, 0) << tensor;
    auto const off = (got - want).norm().item<double>();
    EXPECT_LE(off, 1e-4 * moved) << tensor << " moved by " << moved;
    worst = std::max(worst, off / moved);
  }
  fmt::print("{}: largest error {:.1e} of a tensor's way\n", name, worst);
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
