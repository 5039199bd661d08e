// SPDX-License-Identifier: Apache-2.0
// Losses and gradients a chunk of logits at a time against those of all logits at once.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_sigmoid.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include "fsllm/model/causal_lm.hpp"
#include "fsllm/peft/peft.hpp"
#include "fsllm/train/loss.hpp"
#include "fsllm/train/pair_loss.hpp"
#include "support.hpp"
#include "training.hpp"

namespace fsllm {
namespace {

/// A model that trains as a whole, or through an adapter whose targets include the head.
struct Learner {
  Learner(std::string const& family, std::string const& adapter, std::string const& type)
      : model(load_model(test::source_file("tests/reference/" + family), {.compute_dtype = type})) {
    if (adapter.empty()) {
      model->make_trainable(type);
      parameters = model->parameters();
      return;
    }
    auto yaml = Config::parse("llm: {adapter: {use: True, args: [{" + adapter + "}]}}", "");
    peft = make_peft(load_peft_config(yaml), *model, 3);
    parameters = peft->state();
    uint64_t number = 0;
    for (auto const& [name, tensor] : parameters)
      tensor.detach().add_(at::sin(at::arange(tensor.numel()).add(++number)).mul(0.1).view(tensor.sizes()));
  }
  /// Gradients of `loss`, by name; those that are undefined are missing.
  TensorMap gradients_of(at::Tensor const& loss) const {
    loss.backward();
    TensorMap gradients;
    for (auto const& [name, tensor] : parameters) {
      if (tensor.grad().defined()) gradients.emplace(name, tensor.grad().to(at::kDouble));
      tensor.mutable_grad().reset();
    }
    return gradients;
  }
  std::unique_ptr<CausalLM> model;
  std::unique_ptr<Peft> peft;
  TensorMap parameters;
};

/// More targets than three chunks have.
Batch many_targets() {
  auto const split = rows_of_lengths({38, 4, 38, 27, 38, 38, 38, 38, 38, 38, 38, 38});
  Batch batch;
  for (int64_t row = 0; row < split.rows(); ++row) append_row(batch, split, row);
  return batch;
}

DropoutKey const kKey{7, 2, 1, 3};

/// The loss of each target, fp64, by LibTorch's cross-entropy over all logits.
at::Tensor losses_of_all_logits(CausalLM& model, Batch const& batch) {
  PassOptions options;
  options.segments = {{batch.num_rows(), kKey, 0}};
  auto const ids = at::tensor(batch.ids, at::kLong),
             positions = at::tensor(batch.target_positions, at::kLong);
  auto const pass = model.pass({ids, batch.offsets}, options);
  auto const hidden = model.hidden_states(ids, pass).index_select(0, positions);
  auto const logits = model.logits(hidden, pass.at(positions));
  return at::cross_entropy_loss(logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat),
                                at::tensor(batch.target_ids, at::kLong), {}, at::Reduction::None)
      .to(at::kDouble);
}

void expect_near(TensorMap const& actual, TensorMap const& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (auto const& [name, tensor] : expected) {
    auto const size = tensor.abs().max().item<double>();
    EXPECT_GT(size, 0) << name;
    EXPECT_TRUE(test::tensors_near(actual.at(name), tensor, tolerance * size)) << name;
  }
}

struct Case {
  char const *name, *family, *adapter;
};
void PrintTo(Case const& what, std::ostream* out) {
  *out << what.name;
}

class LearningHead : public testing::TestWithParam<Case> {
 protected:
  /// Factors of LoRA are fp32 under fp64 too.
  double tolerance(std::string const& type) const {
    if (type == "fp32") return 2e-6;
    return *GetParam().adapter ? 1e-6 : 1e-10;
  }
};

TEST_P(LearningHead, HasTheGradientsOfAllLogits) {
  auto const batch = many_targets();
  ASSERT_GT(batch.num_targets(), 384);
  for (std::string const type : {"fp64", "fp32"}) {
    SCOPED_TRACE(type);
    Learner const learner(GetParam().family, GetParam().adapter, type);
    auto const expected = losses_of_all_logits(*learner.model, batch);
    auto const loss = summed_loss(*learner.model, batch, kKey);
    EXPECT_NEAR(loss.item<double>(), expected.sum().item<double>(), tolerance(type) * loss.item<double>());
    auto const wanted = learner.gradients_of(expected.sum().mul(0.25));
    expect_near(learner.gradients_of(loss.mul(0.25)), wanted, 5 * tolerance(type));
    at::NoGradGuard const no_grad;
    EXPECT_NEAR(summed_loss(*learner.model, batch, kKey).item<double>(), loss.item<double>(),
                tolerance(type) * loss.item<double>());
  }
}

/// The loss of each row counts by a weight that is found out after the forward pass, as those of pairs.
TEST_P(LearningHead, HasThemOfWeightedRows) {
  auto const batch = many_targets();
  for (std::string const type : {"fp64", "fp32"}) {
    SCOPED_TRACE(type);
    Learner const learner(GetParam().family, GetParam().adapter, type);
    auto const weigh = [](at::Tensor const& losses) {
      return losses.mul(at::sin(losses.detach()).add(1.5)).sum();
    };
    std::vector<at::Tensor> rows;
    for (auto const& row :
         losses_of_all_logits(*learner.model, batch).split_with_sizes(targets_by_row(batch)))
      rows.push_back(row.sum());
    auto const all = at::stack(rows), losses = row_losses(*learner.model, batch, kKey);
    EXPECT_TRUE(test::tensors_near(losses.detach(), all.detach(), tolerance(type) * 500));
    auto const wanted = learner.gradients_of(weigh(all));
    expect_near(learner.gradients_of(weigh(losses)), wanted, 5 * tolerance(type));
  }
}

TEST_P(LearningHead, HasThemOfPairs) {
  auto batch = many_targets();
  batch.reference.assign(batch.rows.size(), 100);
  Learner const learner(GetParam().family, GetParam().adapter, "fp64");
  auto const of_rows = losses_of_all_logits(*learner.model, batch).split_with_sizes(targets_by_row(batch));
  auto expected = at::zeros({}, at::kDouble);
  for (size_t row = 0; row < of_rows.size(); row += 2)
    expected = expected.sub(at::log_sigmoid(of_rows[row + 1].sum().sub(of_rows[row].sum()).mul(0.1)));
  auto const loss = summed_pair_loss(*learner.model, batch, {LossKind::dpo, 0.1}, kKey);
  EXPECT_NEAR(loss.item<double>(), expected.item<double>(), 1e-6 * loss.item<double>());
  auto const wanted = learner.gradients_of(expected);
  expect_near(learner.gradients_of(loss), wanted, 5 * tolerance("fp64"));
}

INSTANTIATE_TEST_SUITE_P(
    HeadLoss, LearningHead,
    testing::Values(Case{"whole", "llama", ""}, Case{"tied", "gpt2", ""}, Case{"biased", "gptj", ""},
                    Case{"soft_capped", "gemma2", ""},
                    Case{"lora", "llama", "r: 4, lora_dropout: 0.3, target_modules: [q_proj, lm_head]"},
                    Case{"lora_tied_capped", "gemma2", "r: 4, lora_dropout: 0.3, target_modules: [lm_head]"},
                    Case{"dora", "llama",
                         "r: 4, use_dora: True, lora_dropout: 0.2, target_modules: [lm_head]"},
                    Case{"lora_and_bias", "gptj", "r: 4, bias: all, target_modules: [lm_head]"}),
    [](auto const& one) { return one.param.name; });

}  // namespace
}  // namespace fsllm
