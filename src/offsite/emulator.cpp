// SPDX-License-Identifier: Apache-2.0
#include "fsllm/offsite/emulator.hpp"

#include <cmath>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "fsllm/model/blocks.hpp"

namespace fsllm {

bool EmulatorPlan::is_trained(int64_t block) const {
  return block < 0 ? trains_rest : block < first || block >= last;
}

std::vector<int64_t> EmulatorPlan::trained() const {
  std::vector<int64_t> blocks;
  for (int64_t const block : kept)
    if (is_trained(block)) blocks.push_back(block);
  return blocks;
}

std::vector<int64_t> EmulatorPlan::middle() const {
  std::vector<int64_t> places;
  for (size_t place = 0; place < kept.size(); ++place)
    if (!is_trained(kept[place])) places.push_back(static_cast<int64_t>(place));
  return places;
}

std::string EmulatorPlan::full_name(std::string const& name) const {
  auto const place = block_of(name);
  return place < 0 ? name : with_block(name, kept.at(static_cast<size_t>(place)));
}

EmulatorPlan plan_emulator(OffsiteConfig const& config, int64_t layers) {
  EmulatorPlan plan;
  plan.layers = layers;
  plan.sparsity = config.sparsity;
  plan.first = std::max<int64_t>(config.emu_l, 1);
  plan.last = std::min(config.emu_r, layers - 1);
  int64_t const count = plan.last - plan.first;
  FSLLM_CHECK(
      count > 0,
      "llm.offsite_tuning.emu_l = {}, emu_r = {} (of the {} blocks of the model none lies in [{}, {}), "
      "so there is nothing to emulate). {}.",
      config.emu_l, config.emu_r, layers, plan.first, plan.last,
      layers < 3 ? std::string("Use a model of three or more")
                 : fmt::format("Set emu_l below emu_r, both between 1 and {}", layers - 1));
  // Half to even, as Python rounds; the strides are doubles as there.
  auto const chosen =
      static_cast<int64_t>(std::nearbyint(static_cast<double>(count) * (1 - config.drop_ratio)));
  FSLLM_CHECK(chosen > 0,
              "llm.offsite_tuning.kwargs[0].drop_ratio = {} (of the {} blocks in [{}, {}) none is left). "
              "Lower it.",
              config.drop_ratio, count, plan.first, plan.last);
  double const stride = chosen > 1 ? static_cast<double>(count - 1) / static_cast<double>(chosen - 1) : 0;
  for (int64_t block = 0; block < plan.first; ++block) plan.kept.push_back(block);
  for (int64_t i = 0; i < chosen; ++i)
    plan.kept.push_back(plan.first + static_cast<int64_t>(static_cast<double>(i) * stride));
  for (int64_t block = plan.last; block < layers; ++block) plan.kept.push_back(block);
  return plan;
}

void restrict_adapter(PeftConfig& peft, EmulatorPlan const& plan) {
  restrict_to_blocks(peft, plan.trained(), "llm.offsite_tuning.use = True");
}

void check_adapter(TensorMap const& state, EmulatorPlan const& plan) {
  for (auto const& [name, tensor] : state)
    FSLLM_CHECK(
        block_of(name) >= 0 && plan.is_trained(block_of(name)),
        "llm.adapter.args[0].target_modules adapts {} with llm.offsite_tuning.use = True (which trains "
        "blocks before {} and from {} on alone). Name modules by the ends of their paths, without the "
        "head and embeddings.",
        name, plan.first, plan.last);
}

TensorMap make_blocks_trainable(CausalLM& emulator, EmulatorPlan const& plan) {
  TensorMap trained;
  for (auto const& [name, tensor] : emulator.parameters()) {
    auto const place = block_of(name);
    if (!plan.is_trained(place < 0 ? -1 : plan.kept.at(static_cast<size_t>(place)))) continue;
    FSLLM_CHECK(is_finite(tensor), "{} of the model holds values that are not finite. Use a good copy of it.",
                name);
    auto own =
        tensor.detach().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous);
    emulator.set_parameter(name, own.set_requires_grad(true));
    trained.emplace(name, own);
  }
  return trained;
}

void save_plugged(std::filesystem::path const& source, EmulatorPlan const& plan, CausalLM& emulator,
                  TensorMap const& values, std::filesystem::path const& out) {
  TensorMap replaced;
  for (auto const& [name, value] : values) {
    FSLLM_CHECK(is_finite(value),
                "{} holds values that are not finite (training diverged; nothing is written). Lower "
                "train.optimizer.lr.",
                name);
    replaced.emplace(plan.full_name(name), value);
  }
  bool const grown = emulator.config().vocab_size != load_model_config(source).vocab_size;
  for (auto const& [name, tensor] : emulator.parameters())
    for (auto const& [module, rows] : emulator.vocabulary())
      if (grown && rows.is_same(tensor)) replaced.emplace(name, tensor);
  std::vector<int64_t> all(static_cast<size_t>(plan.layers));
  std::iota(all.begin(), all.end(), int64_t{0});
  copy_blocks(source, all, replaced, out);
}

}  // namespace fsllm
