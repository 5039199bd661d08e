// SPDX-License-Identifier: Apache-2.0
#include "fsllm/train/pair_loss.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "fsllm/peft/peft.hpp"
#include "fsllm/train/local_training.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

/// Pairs of rows of two prompt tokens and so many scored ones.
TokenSplit pairs_of_lengths(std::vector<std::pair<int, int>> const& lengths) {
  TokenSplit split;
  split.pairs = true;
  for (size_t pair = 0; pair < lengths.size(); ++pair)
    for (int const answer : {lengths[pair].first, lengths[pair].second}) {
      std::vector<int32_t> ids;
      for (int i = 0; i < answer + 2; ++i)
        ids.push_back(
            3 + static_cast<int32_t>((17 * pair + static_cast<size_t>(i < 2 ? i : i * answer + i)) % 90));
      std::vector<uint8_t> target(ids.size(), 1);
      target[0] = target[1] = 0;
      split.append(ids, target, -1);
    }
  return split;
}

auto const kPairs = pairs_of_lengths({{3, 7}, {5, 2}, {1, 4}, {9, 6}, {4, 8}});

/// A LoRA that is not zero, on the tiny LLaMA in fp64.
struct Adapted {
  explicit Adapted(std::string const& more = "", std::string const& compute = "fp64") {
    auto config = Config::parse("llm: {adapter: {use: True, args: [{r: 4" + more + "}]}}", "test.yaml");
    model = load_model(test::source_file("tests/reference/llama"), {.compute_dtype = compute});
    peft = make_peft(load_peft_config(config), *model, 5);
    parameters = peft->state();
    uint64_t number = 0;
    at::NoGradGuard const no_grad;
    for (auto const& [name, tensor] : parameters)
      tensor.add_(at::sin(at::arange(tensor.numel()).add(++number)).mul(0.1).view(tensor.sizes()));
    peft->detach(*model);
    reference = row_losses(*model, kPairs);
    peft->attach(*model);
  }
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  TensorMap parameters;
  std::vector<double> reference;
};

Batch batch_of(TokenSplit const& data, std::vector<double> const& reference, int64_t first, int64_t pairs) {
  Batch batch;
  for (int64_t row = 2 * first; row < 2 * (first + pairs); ++row) {
    append_row(batch, data, row);
    batch.reference.push_back(reference[static_cast<size_t>(row)]);
  }
  return batch;
}

/// log π(answer | prompt) of one row by itself, from all of its logits.
at::Tensor log_probability(CausalLM& model, TokenSplit const& data, int64_t row) {
  auto const begin = data.offsets[static_cast<size_t>(row)], end = data.offsets[static_cast<size_t>(row) + 1];
  std::vector<int64_t> const ids(data.tokens.begin() + begin, data.tokens.begin() + end);
  RaggedInput const input{at::tensor(ids, at::kLong), {0, end - begin}};
  auto const logits = model.logits(model.hidden_states(input.ids, model.pass(input))).to(at::kDouble);
  auto const next = input.ids.slice(0, 2).unsqueeze(1);
  return at::log_softmax(logits.slice(0, 1, -1), -1).gather(1, next).sum();
}

/// Equation 7 of Rafailov et al. 2023, and the same of means, in the order of the formula.
at::Tensor expected_loss(Adapted& a, PairLoss const& loss) {
  auto sum = at::zeros({}, at::kDouble);
  for (int64_t pair = 0; pair < kPairs.samples(); ++pair) {
    std::vector<at::Tensor> rewards;
    for (int64_t const row : {2 * pair, 2 * pair + 1}) {
      auto const tokens =
          kPairs.offsets[static_cast<size_t>(row) + 1] - kPairs.offsets[static_cast<size_t>(row)] - 2;
      a.peft->detach(*a.model);
      auto const reference = log_probability(*a.model, kPairs, row).detach();
      a.peft->attach(*a.model);
      auto const ratio = log_probability(*a.model, kPairs, row).sub(reference).mul(loss.beta);
      rewards.push_back(loss.kind == LossKind::dpo ? ratio : ratio.div(static_cast<double>(tokens)));
    }
    sum = sum.sub(at::log(at::sigmoid(rewards[0].sub(rewards[1]))));
  }
  return sum;
}

/// Gradients of the parameters, which are then cleared.
TensorMap take_gradients(TensorMap const& parameters) {
  TensorMap gradients;
  for (auto const& [name, tensor] : parameters) {
    gradients.emplace(name, tensor.grad().clone());
    tensor.mutable_grad().reset();
  }
  return gradients;
}

class PairLosses : public testing::TestWithParam<std::tuple<LossKind, std::string>> {};
INSTANTIATE_TEST_SUITE_P(Kinds, PairLosses,
                         testing::Combine(testing::Values(LossKind::dpo, LossKind::reward),
                                          testing::Values("", ", target_modules: [q_proj, lm_head]",
                                                          ", use_dora: True")));

TEST_P(PairLosses, AgreeWithTheFormulaInFloat64) {
  auto const [kind, more] = GetParam();
  Adapted adapted(more);
  PairLoss const loss{kind, 0.7};
  auto const expected = expected_loss(adapted, loss);
  expected.backward();
  auto const want = take_gradients(adapted.parameters);
  EXPECT_GT(l2_norm(want), 0.01);
  auto const whole = summed_pair_loss(*adapted.model, batch_of(kPairs, adapted.reference, 0, 5), loss);
  whole.backward();
  EXPECT_NEAR(whole.item<double>(), expected.item<double>(), 1e-10);
  EXPECT_LE(l2_norm(subtract(take_gradients(adapted.parameters), want)), 1e-7 * l2_norm(want));
  double parts = 0;
  for (auto const& [first, count] : {std::pair{0, 2}, {2, 1}, {3, 2}}) {
    auto const part =
        summed_pair_loss(*adapted.model, batch_of(kPairs, adapted.reference, first, count), loss);
    part.backward();
    parts += part.item<double>();
  }
  EXPECT_NEAR(parts, expected.item<double>(), 1e-10);
  EXPECT_LE(l2_norm(subtract(take_gradients(adapted.parameters), want)), 1e-7 * l2_norm(want));
  auto const judged = evaluate_pairs(*adapted.model, kPairs, adapted.reference, loss);
  EXPECT_NEAR(judged.sum, expected.item<double>(), 1e-10);
  EXPECT_EQ(judged.pairs, 5);
  EXPECT_EQ(judged.rows, 5);
  EXPECT_EQ(judged.targets, 49);
}

/// Margins beyond what exp can hold.
TEST(PairLoss, OfLargeMarginsIsFinite) {
  Adapted adapted("", "fp32");
  auto far = adapted.reference;
  for (size_t row = 0; row < far.size(); ++row) far[row] += row % 2 == 0 ? -1e4 : 1e4;
  auto const judged = evaluate_pairs(*adapted.model, kPairs, far, {LossKind::dpo, 1});
  EXPECT_NEAR(judged.sum, 5 * 2e4, 100);
  EXPECT_EQ(judged.wins, 0);
  EXPECT_NEAR(judged.margin, -judged.sum, 1e-6);
  auto const loss = summed_pair_loss(*adapted.model, batch_of(kPairs, far, 0, 5), {LossKind::dpo, 1});
  EXPECT_NEAR(loss.item<double>(), judged.sum, 1e-2);
}

struct Learnt {
  TensorMap weights;
  TrainResult result;
};

/// Three steps on all pairs, dropout of the adapter included.
Learnt learn(std::string const& yaml) {
  Adapted adapted(", lora_dropout: 0.2");
  auto config = Config::parse(yaml, "test.yaml");
  auto const settings = load_train_config(config);
  LocalTraining training(*adapted.model, adapted.parameters, kPairs, settings, {7, 2, 1, 3}, {},
                         adapted.reference);
  while (!training.done()) training.step();
  return {clone(adapted.parameters), training.result()};
}

/// A step is the mean over its pairs, however it is cut: rows keep their places, and so their masks.
TEST(PairTraining, CountsAndCutsPairs) {
  std::string const start = "train: {loss: dpo, local_update_steps: 3, optimizer: {lr: 0.5}";
  std::string const in_order = ", shuffle: False}\n";
  auto const whole = learn(start + "}\ndataloader: {batch_size: 4" + in_order);
  EXPECT_EQ(whole.result.samples, 12);
  EXPECT_EQ(whole.result.pairs, 12);
  EXPECT_EQ(whole.result.terms(), 12);
  EXPECT_NEAR(whole.result.loss_sum / 12, 0.7, 0.2);
  for (auto const& cut :
       {start + ", micro_batch_size: 1}\ndataloader: {batch_size: 4" + in_order,
        start + ", micro_batch_size: 3}\ndataloader: {batch_size: 4, packing: none" + in_order,
        start + "}\ngrad: {grad_accum_count: 2}\ndataloader: {batch_size: 2, num_workers: 1" + in_order}) {
    auto const same = learn(cut);
    EXPECT_EQ(same.result.pairs, 12) << cut;
    EXPECT_NEAR(same.result.loss_sum, whole.result.loss_sum, 1e-7) << cut;
    EXPECT_LE(l2_norm(subtract(same.weights, whole.weights)), 1e-6) << cut;
  }
  auto const epochs = learn(
      "train: {loss: reward, batch_or_epoch: epoch, local_update_steps: 2}\n"
      "dataloader: {batch_size: 2, group_by_length: True}\n");
  EXPECT_EQ(epochs.result.steps, 6);
  EXPECT_EQ(epochs.result.samples, 10);
  EXPECT_EQ(epochs.result.tokens, 2 * std::ssize(kPairs.tokens));
}

}  // namespace
}  // namespace fsllm
