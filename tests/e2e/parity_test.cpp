// SPDX-License-Identifier: Apache-2.0
// The whole program against the same federated loop written with transformers + peft
// (make_federated_goldens.py).
#include <ATen/ATen.h>
#include <fmt/core.h>

#include <algorithm>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/config.hpp"

namespace fsllm::test {
namespace {

struct Case {
  std::string name;
  int np;
  std::string packing = "pack";
};

class Parity : public testing::TestWithParam<Case> {};

TEST_P(Parity, AdapterAndLossesAgreeWithTransformersAndPeft) {
  auto const [name, np, packing] = GetParam();
  auto const golden = nlohmann::json::parse(read_text(reference_dir("federated") / (name + ".json")));
  TempDir dir;
  auto small = golden_run(golden);
  small.packing = packing;
  auto const outcome =
      run(dir.path(), np, {"fsllm_hpc", "--cfg", write_config(dir.path(), small.yaml(dir.path())).string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;

  expect_golden_adapter(reference_dir("federated"), name, small, dir / "run/adapter");
  size_t round = 0;
  for (auto const& event : read_events(dir / "run/metrics.jsonl")) {
    if (event.at("event") != "round") continue;
    double const want = golden.at("losses").at(round++);
    EXPECT_NEAR(event.at("train").at("loss_per_token").get<double>(), want, 1e-4 * want);
  }
  EXPECT_EQ(round, golden.at("losses").size());
}

/// One round with sums in fp32 against exact ones: an element is off by no more than the roundings of n
/// products, of their sum over clients and ranks, of the division and of the last addition.
TEST(NativeSums, AreWithinTheirRoundingOfExactOnes) {
  constexpr double kRounding = 0x1p-24;
  TempDir dir;
  SmallRun small;
  small.rounds = 1;
  auto const config = write_config(dir.path(), small.yaml(dir.path())).string();
  auto const train = [&](std::string const& reduce, int np) {
    auto const name = fmt::format("{}{}", reduce, np);
    auto const outcome =
        run(dir.path(), np, {"fsllm_hpc", "--cfg", config, "hpc.reduce", reduce, "expname", name});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return dir / name;
  };
  auto const exact_run = train("exact", 0);
  SafetensorsReader const exact(exact_run / "adapter", "adapter_model");
  double largest = 0;
  for (auto const& line : read_events(exact_run / "metrics_clients.jsonl"))
    if (line.contains("train")) largest = std::max(largest, line.at("train").at("update_norm").get<double>());
  ASSERT_GT(largest, 0);
  for (int const np : {0, 2, 3}) {
    SafetensorsReader const native(train("native", np) / "adapter", "adapter_model");
    double worst = 0;
    for (auto const& name : exact.names()) {
      auto const want = exact.tensor(name).to(at::kDouble);
      auto const allowed = kRounding * (9 * largest + 2 * want.abs());
      worst = std::max(worst,
                       ((native.tensor(name).to(at::kDouble) - want).abs() / allowed).max().item<double>());
    }
    fmt::print("{} ranks: {:.2f} of the bound\n", np, worst);
    EXPECT_LE(worst, 1) << np << " ranks";
  }
}

std::vector<Case> cases() {
  return {{"llama_sgd", 0},
          {"llama_adamw", 2},
          {"llama_clip_accumulate", 0},
          {"gpt2_adamw", 3},
          {"qwen2_sgd", 2},
          {"mistral_sgd", 0},
          {"qwen3_adamw", 2},
          {"gpt_neo_sgd", 0},
          {"gptj_adamw", 2},
          {"opt_sgd", 0},
          {"bloom_adamw", 2},
          {"gpt_neox_sgd", 0},
          {"phi3_adamw", 2},
          {"gemma_sgd", 0},
          {"falcon_sgd", 2},
          {"gemma2_sgd", 2},
          {"llama_clip_accumulate", 2, "none"},
          {"mistral_sgd", 0, "none"},
          {"bloom_adamw", 2, "none"},
          {"gemma2_sgd", 0, "none"}};
}

INSTANTIATE_TEST_SUITE_P(Federated, Parity, testing::ValuesIn(cases()), [](auto const& instance) {
  return instance.param.name + (instance.param.packing == "none" ? "_padded" : "");
});

TEST(FamilyTable, EveryRowHasAParityCase) {
  auto missing = known_model_families();
  for (auto const& one : cases()) {
    auto const golden = nlohmann::json::parse(read_text(reference_dir("federated") / (one.name + ".json")));
    std::erase(missing, golden.at("model").get<std::string>());
  }
  EXPECT_THAT(missing, testing::IsEmpty()) << "add a case here and in make_federated_goldens.py";
}

}  // namespace
}  // namespace fsllm::test
