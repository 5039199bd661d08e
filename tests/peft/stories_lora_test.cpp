// SPDX-License-Identifier: Apache-2.0
// LoRA on a real trained model, starting from an adapter that was made elsewhere.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/tensor.h>

#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/peft/peft.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

constexpr char const* kModel = "models/stories260K";

TEST(StoriesLora, TheGivenAdapterLoadsAndLearns) {
  FSLLM_NEED_TEST_DATA(kModel);
  auto const dir = test_data(kModel);
  auto const model = load_model(dir);
  auto const ids =
      read_json(dir / "golden/forward.json").at("cases")[3].at("ids").get<std::vector<int64_t>>();
  auto const peft = make_peft(read_adapter_config(dir / "golden/lora_init"), *model, 0);
  auto const state = peft->state();
  ASSERT_EQ(state.size(), 20U);
  auto const targets = at::tensor(std::vector<int64_t>(ids.begin() + 1, ids.end()), at::kLong);
  auto const loss = [&] {
    auto const input = ragged({ids});
    auto const hidden = model->hidden_states(input.ids, model->pass(input));
    return at::cross_entropy_loss(model->logits(hidden.narrow(0, 0, hidden.size(0) - 1)), targets);
  };
  auto const first = loss();
  for (int step = 0; step < 20; ++step) {
    loss().backward();
    at::NoGradGuard const no_grad;
    for (auto const& [name, tensor] : state) {
      tensor.add_(tensor.grad(), -0.5);
      tensor.mutable_grad().zero_();
    }
  }
  EXPECT_LT(loss().item<double>(), 0.9 * first.item<double>());
}

}  // namespace
}  // namespace fsllm::test
