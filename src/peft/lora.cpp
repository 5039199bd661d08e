// SPDX-License-Identifier: Apache-2.0
#include "lora.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/sqrt.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "methods.hpp"
#include "random.hpp"

namespace fsllm::detail {
namespace {

std::string const kPrefix = "base_model.model.";

/// Scale of an update of this rank (rsLoRA: Kalajdzievski 2023).
double scale_of(LoraOptions const& options, double alpha, double rank) {
  return alpha / (options.rslora ? std::sqrt(rank) : rank);
}

/// The block that a module belongs to: the first number in its path (PEFT's layers_to_transform), or -1.
int64_t block_of(std::string const& module) {
  auto const digit = module.find_first_of("0123456789");
  return digit == std::string::npos ? -1 : std::stoll(module.substr(digit));
}

}  // namespace

Lora::Lora(PeftConfig const& config, CausalLM& model) : options_(options_of<LoraOptions>(config)) {
  options_.targets = resolve_targets(options_.targets, model.config().lora_targets, model);
  auto const& layers = options_.layers;
  for (auto const* linear :
       find_targets(options_.targets, model, {"target_modules", !config.init_from.empty()}))
    if (layers.empty() || std::find(layers.begin(), layers.end(), block_of(linear->name)) != layers.end())
      add_site(*linear);
  FSLLM_CHECK(!sites_.empty(), "{}.layers_to_transform names no layer of this model (it has {}). Correct it.",
              kArgs, model.config().num_layers);
  if (options_.bias == "none") return;
  bool const all = options_.bias == "all";
  biases_ = TrainedBiases(model, [&](std::string const& module) { return all || is_site(module); });
  if (biases_.empty()) log_info("{}.bias = {}: the modules have no biases to train", kArgs, options_.bias);
}

void Lora::add_site(Linear const& linear) {
  auto const rank =
      number_for(options_.rank_pattern, linear.name, static_cast<double>(options_.rank), "rank_pattern");
  auto const alpha = number_for(options_.alpha_pattern, linear.name, options_.alpha, "alpha_pattern");
  auto const device = linear.device();
  auto adapter = std::make_shared<LoraAdapter>();
  adapter->a = trainable({static_cast<int64_t>(rank), linear.in_features()}, device);
  adapter->b = trainable({linear.out_features(), static_cast<int64_t>(rank)}, device);
  adapter->scale = scale_of(options_, alpha, rank);
  adapter->dropout = options_.dropout;
  if (options_.dora) {
    adapter->row_squares = squares_of_rows(linear);
    adapter->magnitude = trainable({linear.out_features()}, device);
  }
  fan_in_fan_out_ = fan_in_fan_out_ || linear.conv1d;
  sites_.push_back({linear.name, adapter});
}

bool Lora::is_site(std::string const& module) const {
  return std::any_of(sites_.begin(), sites_.end(), [&](Site const& site) { return site.module == module; });
}

void Lora::attach(CausalLM& model) {
  for (auto const& site : sites_) module_of(model, site.module).adapter = site.adapter;
  biases_.attach(model);
}

void Lora::detach(CausalLM& model) {
  for (auto const& site : sites_) module_of(model, site.module).adapter.reset();
  biases_.detach(model);
}

TensorMap Lora::state() const {
  TensorMap state;
  for (auto const& site : sites_) {
    state.emplace(kPrefix + site.module + ".lora_A.weight", site.adapter->a);
    state.emplace(kPrefix + site.module + ".lora_B.weight", site.adapter->b);
    if (options_.dora)
      state.emplace(kPrefix + site.module + ".lora_magnitude_vector", site.adapter->magnitude);
  }
  for (auto const& [module, bias] : biases_.by_module())
    state.emplace(kPrefix + module + (is_site(module) ? ".base_layer.bias" : ".bias"), bias);
  return state;
}

void Lora::initialize(uint64_t seed) {
  at::NoGradGuard const no_grad;
  for (size_t i = 0; i < sites_.size(); ++i) {
    auto const& adapter = *sites_[i].adapter;
    // Kaiming-uniform with a = sqrt(5), PEFT's choice.
    fill_uniform(adapter.a, 1 / std::sqrt(static_cast<double>(adapter.a.size(1))),
                 Philox(seed, Purpose::adapter_init, 0, 0, i));
    adapter.b.zero_();
    if (options_.dora) adapter.magnitude.copy_(at::sqrt(adapter.row_squares));
  }
  biases_.initialize();
}

void Lora::merge_into(CausalLM& model) {
  at::NoGradGuard const no_grad;
  for (auto const& site : sites_) {
    auto& linear = module_of(model, site.module);
    auto const& adapter = *site.adapter;
    auto merged = at::add(linear.matrix().to(at::kFloat), at::mm(adapter.b, adapter.a), adapter.scale);
    if (options_.dora) merged.mul_(adapter.magnitude.div(norms_of_rows(adapter, linear)).unsqueeze(1));
    linear.set_weight(linear.conv1d ? merged.t() : merged);
    linear.adapter.reset();
  }
  biases_.merge_into(model);
}

std::unique_ptr<Peft> make_lora(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Lora>(config, model);
}

}  // namespace fsllm::detail
