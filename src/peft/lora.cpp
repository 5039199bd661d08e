// SPDX-License-Identifier: Apache-2.0
#include "lora.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm::detail {
namespace {

std::string const kPrefix = "base_model.model.";

double scale_of(PeftConfig const& config) {
  auto const rank = static_cast<double>(config.rank);
  return config.alpha / (config.rslora ? std::sqrt(rank) : rank);  // rsLoRA: Kalajdzievski 2023
}

/// Kaiming-uniform with a = sqrt(5), PEFT's choice: U(-1/sqrt(in), 1/sqrt(in)).
void fill_uniform(at::Tensor const& a, Philox random) {
  auto const values = at::empty(a.sizes(), at::kFloat);
  double const bound = 1 / std::sqrt(static_cast<double>(a.size(1)));
  auto* out = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i)
    out[i] = static_cast<float>((2 * random.uniform() - 1) * bound);
  a.copy_(values);
}

}  // namespace

at::Tensor LoraAdapter::apply(at::Tensor const& x, at::Tensor const& y, Linear const& base,
                              ForwardContext& context) {
  if (!context.training || dropout == 0) return add_low_rank(x, y, a, b, {}, 1, scale);
  if (!context.dropout)
    fail_internal(__FILE__, __LINE__, "training with dropout needs a generator: " + base.name);
  auto const options = at::TensorOptions().dtype(at::kBool).device(context.dropout->device());
  auto const mask = at::empty(x.sizes(), options).bernoulli_(1 - dropout, context.dropout).to(x.device());
  return add_low_rank(x, y, a, b, mask, 1 - dropout, scale);
}

Lora::Lora(PeftConfig const& config, CausalLM& model) : config_(config) {
  auto const targets = find_targets(config, model);
  config_.target_modules = target_names(config, model);
  for (auto const* linear : targets) {
    auto adapter = std::make_shared<LoraAdapter>();
    auto const options = at::TensorOptions().dtype(at::kFloat).device(linear->weight.device());
    adapter->a = at::zeros({config.rank, linear->in_features()}, options).set_requires_grad(true);
    adapter->b = at::zeros({linear->out_features(), config.rank}, options).set_requires_grad(true);
    adapter->scale = scale_of(config);
    adapter->dropout = config.dropout;
    fan_in_fan_out_ = fan_in_fan_out_ || linear->conv1d;
    sites_.push_back({linear->name, adapter});
  }
}

Linear& Lora::site_in(CausalLM& model, std::string const& module) const {
  for (auto* linear : model.linears())
    if (linear->name == module) return *linear;
  fail(fmt::format(
      "the model has no module {} (the adapter was made for another one). Use its own base model.", module));
}

void Lora::attach(CausalLM& model) {
  for (auto const& site : sites_) site_in(model, site.module).adapter = site.adapter;
}

TensorMap Lora::state() const {
  TensorMap state;
  for (auto const& site : sites_) {
    state.emplace(kPrefix + site.module + ".lora_A.weight", site.adapter->a);
    state.emplace(kPrefix + site.module + ".lora_B.weight", site.adapter->b);
  }
  return state;
}

void Lora::initialize(uint64_t seed) {
  at::NoGradGuard const no_grad;
  for (size_t i = 0; i < sites_.size(); ++i) {
    fill_uniform(sites_[i].adapter->a, Philox(seed, Purpose::adapter_init, 0, 0, i));
    sites_[i].adapter->b.zero_();
  }
}

void Lora::merge_into(CausalLM& model) {
  at::NoGradGuard const no_grad;
  for (auto const& site : sites_) {
    auto& linear = site_in(model, site.module);
    auto const update = at::mm(site.adapter->b, site.adapter->a);  // [out, in]
    auto const merged =
        at::add(linear.weight.to(at::kFloat), linear.conv1d ? update.t() : update, site.adapter->scale);
    linear.weight = merged.to(linear.weight.scalar_type()).contiguous();
    linear.adapter.reset();
  }
}

nlohmann::ordered_json Lora::adapter_config() const {
  nlohmann::ordered_json json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["inference_mode"] = true;
  json["r"] = config_.rank;
  if (config_.alpha == std::floor(config_.alpha))
    json["lora_alpha"] = static_cast<int64_t>(config_.alpha);
  else
    json["lora_alpha"] = config_.alpha;
  json["lora_dropout"] = config_.dropout;
  json["use_rslora"] = config_.rslora;
  json["use_dora"] = false;
  if (config_.target_pattern.empty()) {
    auto targets = config_.target_modules;
    std::sort(targets.begin(), targets.end());
    json["target_modules"] = targets;
  } else {
    json["target_modules"] = config_.target_pattern;
  }
  json["bias"] = "none";
  json["fan_in_fan_out"] = fan_in_fan_out_;
  json["init_lora_weights"] = true;
  json["rank_pattern"] = nlohmann::ordered_json::object();
  json["alpha_pattern"] = nlohmann::ordered_json::object();
  json["modules_to_save"] = nullptr;
  return json;
}

std::unique_ptr<Peft> make_lora(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Lora>(config, model);
}

}  // namespace fsllm::detail
