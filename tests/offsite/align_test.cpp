// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/align.hpp"

#include <ATen/ATen.h>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/offsite/prune.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

TEST(DistillationLoss, IsTheMeanSquareOverThatOfTheTeacher) {
  auto const teacher = at::tensor({3.0F, -4.0F}), student = at::tensor({2.0F, -4.0F});
  EXPECT_FLOAT_EQ(distillation_loss(teacher, student).item<float>(), 0.5F / 12.5F);
  EXPECT_FLOAT_EQ(distillation_loss(teacher.mul(10), student.mul(10)).item<float>(), 0.04F);
  EXPECT_EQ(distillation_loss(teacher, teacher).item<float>(), 0);
}

/// A model of six blocks and its emulator, which lacks one or two of the blocks 1, 2 and 3.
class Alignment : public testing::Test {
 protected:
  Alignment() {
    auto const reference = load_reference("llama");
    copy_blocks(reference.dir, {0, 1, 0, 1, 0, 1}, {}, dir_ / "full");
    for (size_t row = 0; row < reference.rows.size(); ++row)
      rows_.append({reference.rows[row].begin(), reference.rows[row].end()}, reference.targets[row], -1);
    full_ = load_model(dir_ / "full");
    config_.optimizer = {.type = "Adam", .lr = 0.003};
    config_.steps = 30;
    batch_.batch_size = 2;
    make(0.4);
  }
  void make(double drop_ratio, double sparsity = 0) {
    OffsiteConfig offsite;
    offsite.emu_r = 4;
    offsite.drop_ratio = drop_ratio;
    offsite.sparsity = sparsity;
    plan_ = plan_emulator(offsite, 6);
    copy_blocks(dir_ / "full", plan_.kept, {}, dir_ / "emulator", prune_middle(plan_, false));
    emulator_ = load_model(dir_ / "emulator");
  }
  AlignResult align() {
    return align_emulator(*full_, *emulator_, {plan_, config_, batch_, 1, rows_, rows_});
  }
  /// Mean KL(full, emulator) of the next token at all places.
  double divergence() {
    auto const rows = load_reference("llama").rows;
    auto const p = all_logits(*full_, rows).log_softmax(1), q = all_logits(*emulator_, rows).log_softmax(1);
    return p.exp().mul(p.sub(q)).sum(1).mean().item<double>();
  }
  TempDir dir_;
  TokenSplit rows_;
  AlignConfig config_;
  BatchConfig batch_;
  EmulatorPlan plan_;
  std::unique_ptr<CausalLM> full_, emulator_;
};

TEST_F(Alignment, LearnsTheHiddenStatesOfTheModel) {
  config_.lm_weight = 0, config_.kd_weight = 1;
  auto const before = clone(emulator_->parameters());
  auto const result = align();
  EXPECT_GT(result.before.kd, 0);
  EXPECT_LT(result.after.kd, 0.5 * result.before.kd);
  for (auto const& [name, tensor] : emulator_->parameters()) {
    bool const middle = block_of(name) == 1 || block_of(name) == 2;
    EXPECT_EQ(result.blocks.contains(name), middle);
    EXPECT_EQ(at::equal(tensor, before.at(name)), !middle) << name;
    EXPECT_FALSE(tensor.requires_grad());
  }
}

TEST_F(Alignment, LearnsTheLogitsOfTheModel) {
  config_.lm_weight = config_.kd_weight = 0, config_.kl_weight = 1;
  double const before = divergence();
  align();
  EXPECT_LT(divergence(), 0.7 * before);
}

TEST_F(Alignment, LearnsTheTargets) {
  config_.lm_weight = 1, config_.kd_weight = 0;
  auto const result = align();
  EXPECT_LT(result.after.lm, result.before.lm - 0.1);
  // The same loss and gradients where KL is computed beside it.
  make(0.4);
  config_.kl_weight = 1e-12;
  EXPECT_NEAR(align().after.lm, result.after.lm, 1e-3);
}

TEST_F(Alignment, OfASparseEmulatorLeavesItSparse) {
  make(0, 0.5);
  config_.lm_weight = 0, config_.kd_weight = 1;
  auto const before = clone(emulator_->parameters());
  auto const result = align();
  EXPECT_GT(result.before.kd, 0);
  EXPECT_LT(result.after.kd, 0.8 * result.before.kd);
  for (auto const& [name, tensor] : result.blocks) {
    auto const& old = before.at(name);
    EXPECT_FALSE(at::equal(tensor, old)) << name;
    EXPECT_TRUE(tensor.dim() != 2 || at::equal(tensor.eq(0), old.eq(0))) << name;
  }
  // Kept, they are not those of an emulator that is sparser.
  auto const file = dir_ / "sparse.safetensors";
  write_middle(file, plan_, result.blocks);
  EXPECT_NO_THROW(read_middle(file, plan_, *emulator_));
  make(0, 0.8);
  EXPECT_ERROR(read_middle(file, plan_, *emulator_), "holds weights that are 0 in this run's emulator");
}

TEST_F(Alignment, LeavesAWholeModelAsItIs) {
  make(0);
  config_.optimizer = {.type = "SGD", .lr = 0.1};
  config_.lm_weight = 0, config_.kd_weight = 1;
  auto const before = clone(emulator_->parameters());
  auto const result = align();
  EXPECT_EQ(result.before.kd, 0);
  EXPECT_EQ(result.after.kd, 0);
  for (auto const& [name, tensor] : emulator_->parameters())
    EXPECT_TRUE(at::equal(tensor, before.at(name))) << name;
}

TEST_F(Alignment, IsKeptInAFile) {
  config_.steps = 2;
  auto const result = align();
  auto const file = dir_ / "blocks.safetensors";
  write_middle(file, plan_, result.blocks);
  auto const again = read_middle(file, plan_, *emulator_);
  ASSERT_EQ(again.size(), result.blocks.size());
  for (auto const& [name, tensor] : again) EXPECT_TRUE(at::equal(tensor, result.blocks.at(name))) << name;
  make(0.7);
  EXPECT_ERROR(read_middle(file, plan_, *emulator_), "holds more than the");
  make(0);
  EXPECT_ERROR(read_middle(file, plan_, *emulator_), "holds no model.layers.2.");
}

TEST_F(Alignment, TellsWhereItDiverges) {
  config_.optimizer = {.type = "SGD", .lr = 1e30};
  EXPECT_ERROR(align(), "Lower llm.offsite_tuning.emu_align.train.optimizer.lr");
}

}  // namespace
}  // namespace fsllm::test
