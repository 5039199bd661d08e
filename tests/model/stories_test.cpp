// SPDX-License-Identifier: Apache-2.0
// A real trained model of 260,032 parameters against an independent float64 reference.
#include <ATen/ops/log_softmax.h>

#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/generate.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr char const* kModel = "models/stories260K";

TEST(Stories, LogitsAndLossesAgreeWithTheReference) {
  FSLLM_NEED_TEST_DATA(kModel);
  auto const dir = test_data(kModel);
  auto const model = load_model(dir);
  auto const golden = SafetensorsReader(dir / "golden/forward_logits.safetensors").tensors();
  auto const cases = read_json(dir / "golden/forward.json").at("cases");
  double worst = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    auto const ids = cases[i].at("ids").get<std::vector<int64_t>>();
    auto const logits = all_logits(*model, {ids});
    auto const& expected = golden.at(std::to_string(i) + ".logits");
    EXPECT_TRUE(tensors_near(logits, expected, 1e-4)) << "case " << i;
    worst = std::max(worst, logits.sub(expected).abs().max().item<double>());
    auto const log_probability = at::log_softmax(logits.to(at::kDouble), -1);
    for (size_t t = 0; t + 1 < ids.size(); ++t)
      EXPECT_NEAR(-log_probability[static_cast<int64_t>(t)][ids[t + 1]].item<double>(),
                  cases[i].at("nll")[t].get<double>(), 1e-4)
          << "case " << i << " token " << t;
  }
  std::printf("stories260K: largest logit error %.2e\n", worst);
}

TEST(Stories, GreedyContinuationEqualsTheReference) {
  FSLLM_NEED_TEST_DATA(kModel);
  auto const dir = test_data(kModel);
  auto const golden =
      read_json(dir / "golden/forward.json").at("greedy_from_bos").get<std::vector<int32_t>>();
  auto const count = static_cast<int64_t>(golden.size()) - 1;
  auto const model = load_model(dir);
  auto const answer = generate(*model, {{.prompt = {golden.front()}, .max_tokens = count}});
  EXPECT_EQ(answer.front(), std::vector<int32_t>(golden.begin() + 1, golden.end()));
}

}  // namespace
}  // namespace fsllm::test
