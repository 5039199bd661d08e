// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/emulator.hpp"

#include <ATen/ATen.h>

#include <cstring>
#include <numeric>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/model/blocks.hpp"
#include "fsllm/offsite/prune.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

std::vector<int64_t> middle_of(int64_t count, double drop_ratio) {
  OffsiteConfig config;
  config.drop_ratio = drop_ratio;
  config.emu_l = 2;
  config.emu_r = 2 + count;
  auto const plan = plan_emulator(config, count + 4);
  EXPECT_EQ(plan.trained(), (std::vector<int64_t>{0, 1, count + 2, count + 3}));
  std::vector<int64_t> middle;
  for (auto const place : plan.middle()) middle.push_back(plan.kept[static_cast<size_t>(place)] - 2);
  return middle;
}

/// What Python gives for [int(i * ((n - 1) / (m - 1))) for i in range(m)], m = round(n * (1 - ratio)).
TEST(EmulatorPlan, KeepsTheBlocksOfFsLlm) {
  using Blocks = std::vector<int64_t>;
  EXPECT_EQ(middle_of(28, 0.2),
            (Blocks{0, 1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 18, 19, 20, 21, 23, 24, 25, 27}));
  EXPECT_EQ(middle_of(28, 0.5), (Blocks{0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 27}));
  EXPECT_EQ(middle_of(16, 0.25), (Blocks{0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14})) << "11·(15/11) < 15";
  EXPECT_EQ(middle_of(3, 0.5), (Blocks{0, 2})) << "1.5 is rounded to 2";
  EXPECT_EQ(middle_of(5, 0.5), (Blocks{0, 4})) << "2.5 is rounded to 2";
  EXPECT_EQ(middle_of(5, 0.8), (Blocks{0}));
  EXPECT_EQ(middle_of(4, 0.0), (Blocks{0, 1, 2, 3}));
}

TEST(EmulatorPlan, KeepsTheEndsOfTheModel) {
  OffsiteConfig config;
  config.emu_l = 0;
  config.emu_r = 100;
  auto const plan = plan_emulator(config, 6);
  EXPECT_EQ(plan.kept, (std::vector<int64_t>{0, 1, 4, 5}));
  EXPECT_EQ(plan.trained(), (std::vector<int64_t>{0, 5}));
  EXPECT_EQ(plan.full_name("model.layers.2.mlp.up_proj.weight"), "model.layers.4.mlp.up_proj.weight");
  EXPECT_EQ(plan.full_name("lm_head.weight"), "lm_head.weight");
  EXPECT_FALSE(plan.is_trained(-1));
}

TEST(EmulatorPlan, RefusesNothingToEmulate) {
  OffsiteConfig config;
  config.emu_l = 3;
  config.emu_r = 3;
  EXPECT_ERROR(plan_emulator(config, 8),
               "emu_l = 3, emu_r = 3 (of the 8 blocks of the model none lies in [3, 3)");
  config.emu_r = 9;
  EXPECT_ERROR(plan_emulator(config, 4), "none lies in [3, 3)");
  EXPECT_ERROR(plan_emulator(config, 1), "nothing to emulate");
  config.drop_ratio = 0.9;
  EXPECT_ERROR(plan_emulator(config, 8), "drop_ratio = 0.9 (of the 4 blocks in [3, 7) none is left)");
}

TEST(Blocks, AreFoundInNames) {
  EXPECT_EQ(block_of("h.0.attn.c_attn.weight"), 0);
  EXPECT_EQ(block_of("base_model.model.model.layers.12.q_proj.lora_A.weight"), 12);
  EXPECT_EQ(block_of("model.embed_tokens.weight"), -1);
  EXPECT_EQ(block_of("12"), 12);
  EXPECT_EQ(block_of("layer3.weight"), -1);
  EXPECT_EQ(with_block("transformer.h.3.ln_1.bias", 10), "transformer.h.10.ln_1.bias");
}

bool same_bytes(at::Tensor const& a, at::Tensor const& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.contiguous().const_data_ptr(), b.contiguous().const_data_ptr(), a.nbytes()) == 0;
}

/// Every fixture's model, six blocks deep: its own in turn.
class OfFamily : public testing::TestWithParam<std::string> {
 protected:
  OfFamily() {
    auto const source = load_reference(GetParam()).dir;
    auto const own = load_model_config(source).num_layers;
    std::vector<int64_t> blocks(6);
    for (int64_t i = 0; i < 6; ++i) blocks[static_cast<size_t>(i)] = i % own;
    copy_blocks(source, blocks, {}, full());
    OffsiteConfig config;
    config.emu_r = 4;  // kept: 0, 1, 3, 4, 5
    config.drop_ratio = 0.4;
    plan_ = plan_emulator(config, 6);
    copy_blocks(full(), plan_.kept, {}, emulator());
  }
  fs::path full() const { return dir_ / "full"; }
  fs::path emulator() const { return dir_ / "emulator"; }
  TempDir dir_;
  EmulatorPlan plan_;
};

TEST_P(OfFamily, HasTheTensorsOfItsBlocks) {
  EXPECT_EQ(plan_.kept, (std::vector<int64_t>{0, 1, 3, 4, 5}));
  SafetensorsReader const whole(full()), part(emulator());
  size_t outside = 0;
  for (auto const& name : part.names()) {
    EXPECT_TRUE(same_bytes(part.tensor(name), whole.tensor(plan_.full_name(name)))) << name;
    outside += block_of(name) < 0 ? 1 : 0;
  }
  for (auto const& name : whole.names()) outside -= block_of(name) < 0 ? 1 : 0;
  EXPECT_EQ(outside, 0U);
  auto const config = load_model_config(full()), own = load_model_config(emulator());
  EXPECT_EQ(own.num_layers, 5);
  for (size_t place = 0; place < plan_.kept.size(); ++place)
    EXPECT_EQ(own.window_of(place), config.window_of(static_cast<size_t>(plan_.kept[place])));
}

/// Of each output of the middle blocks' matrices the largest weights stay, and everything else.
TEST_P(OfFamily, IsPruned) {
  auto const config = load_model_config(full());
  plan_.sparsity = 0.6;
  copy_blocks(full(), plan_.kept, {}, dir_ / "pruned", prune_middle(plan_, config.conv1d));
  SafetensorsReader const plain(emulator()), sparse(dir_ / "pruned");
  ASSERT_EQ(sparse.names(), plain.names());
  size_t matrices = 0;
  for (auto const& name : plain.names()) {
    auto before = plain.tensor(name), after = sparse.tensor(name);
    auto const place = block_of(name);
    if (before.dim() != 2 || place < 1 || place > 2) {
      EXPECT_TRUE(same_bytes(after, before)) << name;
      continue;
    }
    ++matrices;
    if (config.conv1d) before = before.t(), after = after.t();
    auto const left = after.ne(0);
    ASSERT_TRUE(before.ne(0).all().item<bool>()) << name;
    auto const stay = before.size(1) - static_cast<int64_t>(0.6 * static_cast<double>(before.size(1)));
    EXPECT_TRUE(left.sum(1).eq(stay).all().item<bool>()) << name;
    EXPECT_TRUE(at::equal(after, before.mul(left))) << name;
    auto const least = before.abs().masked_fill(left.logical_not(), 1e9).amin(1);
    EXPECT_TRUE(before.abs().masked_fill(left, 0).amax(1).le(least).all().item<bool>()) << name;
  }
  EXPECT_GE(matrices, 8U);
  auto const rows = load_reference(GetParam()).rows;
  auto const logits = all_logits(*load_model(dir_ / "pruned"), rows);
  EXPECT_TRUE(logits.isfinite().all().item<bool>());
  EXPECT_FALSE(tensors_near(logits, all_logits(*load_model(emulator()), rows), 1e-4));
}

/// Where blocks that it has not add nothing to the stream, the full model computes what the emulator does.
TEST_P(OfFamily, ComputesWhatTheModelWithoutTheOthersDoes) {
  auto const reference = load_reference(GetParam());
  auto const part = load_model(emulator());
  auto const whole = load_model(full());
  if (whole->config().block_form == BlockForm::post_norm) GTEST_SKIP() << "a block without output norms";
  for (auto const& [name, tensor] : whole->parameters()) {
    bool const ends =
        name.find("o_proj") != std::string::npos || name.find("out_proj") != std::string::npos ||
        name.find("c_proj") != std::string::npos || name.find("down_proj") != std::string::npos ||
        name.find("dense.") != std::string::npos || name.find("4h_to_h") != std::string::npos ||
        name.find("fc_out") != std::string::npos || name.find("fc2") != std::string::npos;
    if (block_of(name) == 2 && ends) whole->set_parameter(name, at::zeros_like(tensor));
  }
  auto const logits = all_logits(*part, reference.rows);
  EXPECT_TRUE(tensors_near(logits, all_logits(*whole, reference.rows), 1e-5));
  EXPECT_FALSE(tensors_near(logits, all_logits(*load_model(full()), reference.rows), 1e-3));
}

TEST_P(OfFamily, IsPluggedIntoTheModel) {
  auto const model = load_model(emulator());
  auto const trained = make_blocks_trainable(*model, plan_);
  auto values = clone(trained);
  for (auto& [name, value] : values) value.add_(0.25);
  save_plugged(full(), plan_, *model, values, dir_ / "plugged");
  SafetensorsReader const whole(full()), plugged(dir_ / "plugged");
  ASSERT_EQ(plugged.names(), whole.names());
  size_t changed = 0;
  for (auto const& name : whole.names()) {
    auto const block = block_of(name);
    bool const outer = block == 0 || block == 4 || block == 5;
    changed += outer ? 1 : 0;
    if (outer)
      EXPECT_TRUE(same_bytes(plugged.tensor(name), whole.tensor(name).to(at::kFloat).add(0.25))) << name;
    else
      EXPECT_TRUE(same_bytes(plugged.tensor(name), whole.tensor(name))) << name;
  }
  EXPECT_EQ(changed, trained.size());
  EXPECT_EQ(load_model_config(dir_ / "plugged"), load_model_config(full()));
}

/// An adapter of the emulator stands under the names of the full model, and is one of it.
TEST_P(OfFamily, HasTheAdapterOfTheModel) {
  auto const part = load_model(emulator(), {.block_numbers = plan_.kept});
  auto const whole = load_model(full());
  auto keys =
      Config::parse("llm: {adapter: {use: True, args: [{r: 2, target_modules: all-linear}]}}", "test");
  auto config = load_peft_config(keys);
  restrict_adapter(config, plan_);
  auto const of_part = make_peft(config, *part, 3), of_whole = make_peft(config, *whole, 3);
  auto state = of_part->state();
  check_adapter(state, plan_);
  std::set<int64_t> blocks;
  for (auto& [name, tensor] : state) {
    blocks.insert(block_of(name));
    if (name.find("lora_B") != std::string::npos) tensor.detach().fill_(0.01);
  }
  EXPECT_EQ(blocks, (std::set<int64_t>{0, 4, 5}));
  auto live = of_whole->state();
  copy_values(live, state);
  save_adapter(dir_ / "adapter", *of_part, state, "base");
  auto const again = load_model(full());
  make_peft(read_adapter_config(dir_ / "adapter"), *again, 0);
  auto const rows = load_reference(GetParam()).rows;
  EXPECT_TRUE(tensors_near(all_logits(*again, rows), all_logits(*whole, rows), 0));
}

INSTANTIATE_TEST_SUITE_P(Fixtures, OfFamily, testing::ValuesIn(reference_names()));

TEST(RestrictedAdapter, IsALoraOfTrainedBlocks) {
  OffsiteConfig offsite;
  offsite.emu_r = 4;
  auto const plan = plan_emulator(offsite, 6);
  auto const read = [](std::string const& arguments) {
    auto keys = Config::parse("llm: {adapter: {use: True, args: [{" + arguments + "}]}}", "test");
    return load_peft_config(keys);
  };
  auto prefix = read("adapter_method: prefix");
  EXPECT_ERROR(restrict_adapter(prefix, plan), "adapter_method = prefix with llm.offsite_tuning.use = True");
  auto middle = read("layers_to_transform: [0, 2]");
  EXPECT_ERROR(restrict_adapter(middle, plan), "layers_to_transform names block 2");
  auto biases = read("bias: all");
  EXPECT_ERROR(restrict_adapter(biases, plan), "bias = all");
  EXPECT_ERROR(check_adapter({{"base_model.model.lm_head.lora_A.weight", {}}}, plan), "lm_head");
}

}  // namespace
}  // namespace fsllm::test
