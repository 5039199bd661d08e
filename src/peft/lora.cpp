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

double scale_of(LoraOptions const& options, double alpha, int64_t rank) {
  return LowRankSize{rank, alpha, options.rslora}.scale();
}

/// The block that a module belongs to (PEFT's layers_to_transform): the first number behind the name of the
/// list of blocks, or -1.
int64_t block_of(std::string const& module, std::vector<std::string> const& patterns) {
  auto const any = std::vector<std::string>{"[^.]*"};
  for (auto const& pattern : patterns.empty() ? any : patterns)
    if (auto const block = number_behind(pattern, module, "layers_pattern")) return *block;
  return -1;
}

}  // namespace

Lora::Lora(PeftConfig const& config, CausalLM& model) : options_(options_of<LoraOptions>(config)) {
  options_.targets = resolve_targets(options_.targets, model.config().lora_targets, model);
  for (auto const* linear :
       find_targets(options_.targets, model, {"target_modules", config.init_from, /*vocabulary=*/true}))
    if (in_chosen_layer(linear->name)) add_site(*linear);
  embedding_module_ = model.config().embedding;
  head_module_ = model.config().head;
  if (matches(options_.targets, embedding_module_, "target_modules") && in_chosen_layer(embedding_module_))
    add_embedding(model);
  FSLLM_CHECK(!sites_.empty() || embedding_,
              "{}.layers_to_transform names no layer of this model (it has {}). Correct it.", kArgs,
              model.config().num_layers);
  warn_of_ranks();
  if (options_.bias == "none") return;
  bool const all = options_.bias == "all";
  biases_ = TrainedBiases(model, [&](std::string const& module) { return all || is_site(module); });
  if (biases_.empty()) log_info("{}.bias = {}: the modules have no biases to train", kArgs, options_.bias);
}

/// PEFT (`check_target_module_exists`) asks for the layer of those alone that are not named by their whole
/// path.
bool Lora::in_chosen_layer(std::string const& module) const {
  auto const& layers = options_.layers;
  auto const& names = options_.targets.names;
  if (layers.empty() || std::find(names.begin(), names.end(), module) != names.end()) return true;
  return std::find(layers.begin(), layers.end(), block_of(module, options_.layers_patterns)) != layers.end();
}

std::pair<int64_t, double> Lora::size_of(std::string const& module) const {
  auto const rank =
      number_for(options_.rank_pattern, module, static_cast<double>(options_.rank), "rank_pattern");
  return {static_cast<int64_t>(rank),
          number_for(options_.alpha_pattern, module, options_.alpha, "alpha_pattern")};
}

void Lora::add_site(Linear const& linear) {
  auto const [rank, alpha] = size_of(linear.name);
  auto const device = linear.device();
  auto adapter = std::make_shared<LoraAdapter>();
  adapter->a = trainable({rank, linear.in_features()}, device);
  adapter->b = trainable({linear.out_features(), rank}, device);
  adapter->scale = scale_of(options_, alpha, rank);
  adapter->dropout = options_.dropout;
  if (options_.dora) {
    adapter->row_squares = squares_of_rows(linear);
    adapter->magnitude = trainable({linear.out_features()}, device);
  }
  fan_in_fan_out_ = linear.conv1d;  // PEFT writes what the last module is; a head is no Conv1D
  sites_.push_back({linear.name, adapter, adapter->scale});
}

void Lora::add_embedding(CausalLM& model) {
  FSLLM_CHECK(!options_.dora,
              "{}.use_dora = true ({} is an embedding, and DoRA on embeddings is not available in this "
              "version). Take it out of target_modules, or set use_dora: False.",
              kArgs, embedding_module_);
  auto const weight = model.vocabulary().at(embedding_module_ + ".weight");
  auto const [rank, alpha] = size_of(embedding_module_);
  embedding_ = std::make_shared<LoraEmbedding>();
  embedding_->a = trainable({rank, weight.size(0)}, weight.device());
  embedding_->b = trainable({weight.size(1), rank}, weight.device());
  embedding_->scale = embedding_scale_ = scale_of(options_, alpha, rank);
}

bool Lora::is_site(std::string const& module) const {
  return std::any_of(sites_.begin(), sites_.end(), [&](Site const& site) { return site.module == module; });
}

/// PEFT takes any rank; above the width of the matrix it only costs.
void Lora::warn_of_ranks() const {
  for (auto const& [module, adapter, scale] : sites_) {
    auto const width = std::min(adapter->a.size(1), adapter->b.size(0));
    if (adapter->a.size(0) <= width) continue;
    log_warning("{}.r = {} ({} has the rank {}: a larger r learns nothing more). Lower it.", kArgs,
                adapter->a.size(0), module, width);
    return;
  }
}

void Lora::attach(CausalLM& model) {
  for (auto const& site : sites_) module_of(model, site.module).adapter = site.adapter;
  if (embedding_) model.set_embedding_adapter(embedding_);
  biases_.attach(model);
}

void Lora::detach(CausalLM& model) {
  for (auto const& site : sites_) module_of(model, site.module).adapter.reset();
  if (embedding_) model.set_embedding_adapter(nullptr);
  biases_.detach(model);
}

TensorMap Lora::state() const {
  TensorMap state;
  for (auto const& site : sites_) {
    if (cores_) {
      state.emplace(site.name_core(), site.adapter->core);
      continue;
    }
    state.emplace(site.name_a(), site.adapter->a);
    state.emplace(site.name_b(), site.adapter->b);
    if (options_.dora)
      state.emplace(kPeftPrefix + site.module + ".lora_magnitude_vector", site.adapter->magnitude);
  }
  if (embedding_) {
    state.emplace(kPeftPrefix + embedding_module_ + ".lora_embedding_A", embedding_->a);
    state.emplace(kPeftPrefix + embedding_module_ + ".lora_embedding_B", embedding_->b);
  }
  for (auto const& [module, bias] : biases_.by_module())
    state.emplace(kPeftPrefix + module + (is_site(module) ? ".base_layer.bias" : ".bias"), bias);
  return state;
}

void Lora::initialize(uint64_t seed) {
  at::NoGradGuard const no_grad;
  for (size_t i = 0; i < sites_.size(); ++i) {
    auto const& adapter = *sites_[i].adapter;
    Philox const random(seed, Purpose::adapter_init, 0, 0, i);
    if (options_.gaussian)
      fill_normal(adapter.a, 1 / static_cast<double>(adapter.a.size(0)), random);
    else  // Kaiming-uniform with a = sqrt(5), PEFT's choice
      fill_uniform(adapter.a, 1 / std::sqrt(static_cast<double>(adapter.a.size(1))), random);
    adapter.b.zero_();
    if (options_.dora) adapter.magnitude.copy_(at::sqrt(adapter.row_squares));
  }
  if (embedding_) {
    embedding_->a.zero_();
    fill_normal(embedding_->b, 1, Philox(seed, Purpose::adapter_init, 0, 0, sites_.size()));
  }
  biases_.initialize();
}

/// Beside a tied head the embedding alone changes.
void Lora::merge_embedding(CausalLM& model) const {
  model.untie_head();
  auto vocabulary = model.vocabulary();
  auto& weight = vocabulary.at(embedding_module_ + ".weight");
  auto const update = at::mm(embedding_->b, embedding_->a).t();
  weight = at::add(weight.to(at::kFloat), update, embedding_->scale).to(weight.scalar_type());
  model.set_vocabulary(vocabulary);
  model.set_embedding_adapter(nullptr);
}

void Lora::merge_into(CausalLM& model) {
  at::NoGradGuard const no_grad;
  if (embedding_) merge_embedding(model);
  if (is_site(model.config().head)) model.untie_head();
  for (auto const& site : sites_) {
    auto& linear = module_of(model, site.module);
    auto const& adapter = *site.adapter;
    auto const a = cores_ ? at::mm(adapter.core, adapter.a) : adapter.a;
    auto merged = at::add(linear.matrix().to(at::kFloat), at::mm(adapter.b, a), adapter.scale);
    if (options_.dora) merged.mul_(adapter.magnitude.div(norms_of_rows(adapter, linear)).unsqueeze(1));
    linear.set_weight(linear.conv1d ? merged.t() : merged);
    linear.adapter.reset();
  }
  biases_.merge_into(model);
}

std::vector<LowRankTarget> Lora::low_rank_targets() const {
  std::vector<LowRankTarget> targets;
  if (options_.dora) return targets;
  for (auto const& site : sites_)
    targets.push_back(
        {site.module, site.name_a(), site.name_b(), site.scale, cores_ ? site.name_core() : std::string()});
  if (embedding_)
    targets.push_back({embedding_module_, kPeftPrefix + embedding_module_ + ".lora_embedding_A",
                       kPeftPrefix + embedding_module_ + ".lora_embedding_B", embedding_scale_});
  return targets;
}

TensorMap Lora::slots(int64_t clients) {
  auto const only_blocks = !options_.dora && !embedding_ && biases_.empty() &&
                           std::none_of(sites_.begin(), sites_.end(),
                                        [&](Site const& site) { return site.module == head_module_; });
  if (!only_blocks) return {};
  TensorMap slots;
  for (auto const& site : sites_) {
    auto& adapter = *site.adapter;
    auto const room = [&](at::Tensor const& values) {
      return trainable({clients, values.size(0), values.size(1)}, values.device());
    };
    if (cores_) {
      slots.emplace(site.name_core(), adapter.core_slots = room(adapter.core));
      continue;
    }
    slots.emplace(site.name_a(), adapter.a_slots = room(adapter.a));
    slots.emplace(site.name_b(), adapter.b_slots = room(adapter.b));
  }
  return slots;
}

void Lora::scale_low_rank(double factor) {
  for (auto& site : sites_) site.adapter->scale = site.scale * factor;
  if (embedding_) embedding_->scale = embedding_scale_ * factor;
}

std::unique_ptr<Peft> make_lora(PeftConfig const& config, CausalLM& model) {
  return std::make_unique<Lora>(config, model);
}

}  // namespace fsllm::detail

namespace fsllm {

double LowRankSize::scale() const {  // rank-stabilised: Kalajdzievski 2023
  auto const r = static_cast<double>(rank);
  return alpha / (rank_stabilised ? std::sqrt(r) : r);
}

std::optional<LowRankSize> low_rank_size(PeftConfig const& config) {
  auto const* lora = std::any_cast<detail::LoraOptions>(&config.options);
  if (lora == nullptr || !lora->rank_pattern.empty() || !lora->alpha_pattern.empty()) return {};
  return LowRankSize{lora->rank, lora->alpha, lora->rslora};
}

}  // namespace fsllm
