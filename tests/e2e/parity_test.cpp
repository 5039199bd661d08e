// SPDX-License-Identifier: Apache-2.0
// The whole program against the same federated loop written with transformers + peft
// (make_federated_goldens.py).
#include <ATen/ATen.h>
#include <fmt/core.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

struct Case {
  std::string name;
  int np;
};

class Parity : public testing::TestWithParam<Case> {};

TEST_P(Parity, AdapterAndLossesEqualTransformersAndPeft) {
  auto const [name, np] = GetParam();
  auto const golden = nlohmann::json::parse(read_text(reference_dir("federated") / (name + ".json")));
  TempDir dir;
  SmallRun small;
  small.model = golden.at("model");
  small.init_from = (reference_dir(small.model) / "adapter").string();
  small.optimizer = fmt::format("{{type: {}, lr: {}{}}}", golden.at("optimizer").get<std::string>(),
                                golden.at("lr").get<double>(),
                                golden.at("optimizer") == "AdamW" ? ", weight_decay: 0.01" : "");
  small.rounds = golden.at("rounds");
  small.steps = golden.at("steps");
  small.batch = golden.at("batch");
  small.more = fmt::format("grad: {{grad_accum_count: {}, grad_clip: {}}}\n",
                           golden.at("accumulation").get<int>(), golden.at("clip").get<double>());
  auto const outcome =
      run(dir.path(), np, {"fsllm_hpc", "--cfg", write_config(dir.path(), small.yaml(dir.path())).string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;

  SafetensorsReader const expected(reference_dir("federated") / (name + ".safetensors"));
  SafetensorsReader const start(reference_dir(small.model) / "adapter", "adapter_model");
  SafetensorsReader const actual(dir / "run/adapter", "adapter_model");
  ASSERT_EQ(actual.names(), expected.names());
  for (auto const& tensor : expected.names()) {
    auto const want = expected.tensor(tensor).to(at::kDouble), got = actual.tensor(tensor).to(at::kDouble);
    auto const moved = (want - start.tensor(tensor).to(at::kDouble)).norm().item<double>();
    EXPECT_GT(moved, 0) << tensor;
    EXPECT_LE((got - want).norm().item<double>(), 1e-4 * moved) << tensor << " moved by " << moved;
  }
  size_t round = 0;
  for (auto const& event : read_events(dir / "run/metrics.jsonl")) {
    if (event.at("event") != "round") continue;
    double const want = golden.at("losses").at(round++);
    EXPECT_NEAR(event.at("train").at("loss_per_token").get<double>(), want, 1e-4 * want);
  }
  EXPECT_EQ(round, golden.at("losses").size());
}

INSTANTIATE_TEST_SUITE_P(Federated, Parity,
                         testing::Values(Case{"llama_sgd", 0}, Case{"llama_adamw", 2},
                                         Case{"llama_clip_accumulate", 0}, Case{"gpt2_adamw", 3},
                                         Case{"qwen2_sgd", 2}),
                         [](auto const& instance) { return instance.param.name; });

}  // namespace
}  // namespace fsllm::test
