// SPDX-License-Identifier: Apache-2.0
// The decoder's modules and parameters: which there are, what they are called, who owns them.
#include <ATen/ops/tensor.h>
#include <fmt/core.h>

#include <bit>
#include <cmath>

#include "decoder.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/model/dtype.hpp"
#include "weights.hpp"

namespace fsllm::detail {

namespace {

/// One slope a head: 2^(−8i/n) for i = 1 … n, n a power of two; for other counts those of the next smaller
/// power and then every other one of the next larger (Press et al. 2022; transformers modeling_bloom).
std::vector<double> alibi_slopes(int64_t heads) {
  auto const power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  std::vector<double> slopes;
  for (int64_t i = 1; i <= power; ++i)
    slopes.push_back(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(power)));
  for (int64_t i = 1; i <= heads - power; ++i)
    slopes.push_back(std::exp2(-4.0 * static_cast<double>(2 * i - 1) / static_cast<double>(power)));
  return slopes;
}

ScoreRule make_score_rule(ModelConfig const& config, at::ScalarType compute, c10::Device device) {
  ScoreRule rule;
  rule.scale = config.attention_scale > 0 ? config.attention_scale
                                          : 1 / std::sqrt(static_cast<double>(config.head_dim));
  rule.softcap = config.attention_softcap;
  rule.dropout = config.attention_dropout;
  if (config.position == PositionKind::alibi)
    rule.slopes = at::tensor(alibi_slopes(config.num_heads), at::kDouble)
                      .to(device, compute)
                      .view({config.num_heads, 1, 1});
  return rule;
}

}  // namespace

Decoder::Decoder(ModelConfig config, Family const& family, std::string const& prefix, at::ScalarType compute,
                 c10::Device device)
    : config_(std::move(config)),
      compute_(compute),
      device_(device),
      score_rule_(make_score_rule(config_, compute, device)) {
  auto const factor = config_.rope_attention_factor;
  if (config_.position == PositionKind::rope)
    rope_.emplace(rope_frequencies(config_), factor, compute, device);
  if (config_.rope_scaling == RopeScaling::longrope)
    long_rope_.emplace(rope_frequencies(config_, /*long_row=*/true), factor, compute, device);
  add_embeddings(family, prefix);
  blocks_.resize(static_cast<size_t>(config_.num_layers));
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    auto const first = layout_.size();
    add_block(blocks_[layer], family, prefix, layer);
    for (auto i = first; i < layout_.size(); ++i) layout_[i].layer = static_cast<int64_t>(layer);
  }
  add_head(family, prefix);
}

void Decoder::add_embeddings(Family const& family, std::string const& prefix) {
  auto const hidden = config_.hidden_size, size = config_.embedding_size;
  layout_.push_back({prefix + family.embedding + ".weight",
                     {config_.vocab_size, size},
                     &embedding_,
                     nullptr,
                     -1,
                     config_.embedding + ".weight"});
  if (size != hidden)
    add_linear(embedding_project_, family.prefix + family.embedding_project,
               prefix + family.embedding_project, size, hidden, /*bias=*/false);
  if (config_.embedding_norm) add_norm(embedding_norm_, prefix + family.embedding_norm, hidden);
  if (config_.position == PositionKind::learned)
    layout_.push_back({prefix + family.positions + ".weight",
                       {config_.position_offset + config_.max_positions, hidden},
                       &positions_});
}

void Decoder::add_head(Family const& family, std::string const& prefix) {
  auto const hidden = config_.hidden_size, size = config_.embedding_size;
  if (config_.final_norm) add_norm(final_norm_, prefix + family.final_norm, hidden);
  if (size != hidden)
    add_linear(head_project_, family.prefix + family.head_project, prefix + family.head_project, hidden, size,
               /*bias=*/false);
  head_.name = family.head;
  if (!config_.tied_embeddings) add_head_tensor(".weight", {config_.vocab_size, size}, head_.weight);
  if (config_.head_bias) add_head_tensor(".bias", {config_.vocab_size}, head_.bias);
}

void Decoder::add_head_tensor(std::string const& kind, std::vector<int64_t> const& shape,
                              at::Tensor& tensor) {
  auto const name = head_.name + kind;
  layout_.push_back({name, shape, &tensor, nullptr, -1, name});
}

void Decoder::add_norm(Norm& norm, std::string const& path, int64_t size) {
  layout_.push_back({path + ".weight", {size}, &norm.weight});
  if (config_.norm == NormKind::layer) layout_.push_back({path + ".bias", {size}, &norm.bias});
}

void Decoder::add_linear(Linear& linear, std::string const& module, std::string const& path, int64_t in,
                         int64_t out, bool bias) {
  linear.name = module;
  linear.conv1d = config_.conv1d;
  auto const shape = config_.conv1d ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in};
  layout_.push_back({path + ".weight", shape, &linear.weight, &linear});
  if (bias) layout_.push_back({path + ".bias", {out}, &linear.bias});
}

void Decoder::add_block(Block& block, Family const& family, std::string const& prefix, size_t layer) {
  auto const& names = family.block;
  auto const below = fmt::format("{}.{}.", family.blocks, layer);
  auto const& numbers = config_.block_numbers;
  auto const module = fmt::format("{}{}.{}.", family.prefix, family.blocks,
                                  numbers.empty() ? static_cast<int64_t>(layer) : numbers.at(layer));
  auto const add = [&](Linear& linear, std::string const& name, int64_t in, int64_t out, bool bias) {
    add_linear(linear, module + name, prefix + below + name, in, out, bias);
  };
  auto const hidden = config_.hidden_size, inner = config_.intermediate_size;
  auto const q_size = config_.num_heads * config_.head_dim, kv_size = config_.num_kv_heads * config_.head_dim;
  add_block_norms(block, names, prefix + below);
  if (config_.qkv == QkvKind::separate) {
    add(block.q, names.q, hidden, q_size, config_.qkv_bias);
    add(block.k, names.k, hidden, kv_size, config_.qkv_bias);
    add(block.v, names.v, hidden, kv_size, config_.qkv_bias);
  } else {
    add(block.qkv, names.qkv, hidden, q_size + 2 * kv_size, config_.qkv_bias);
  }
  add(block.out, names.out, q_size, hidden, config_.out_bias);
  if (config_.fused_gate_up) {
    add(block.gate_up, names.gate_up, hidden, 2 * inner, config_.mlp_bias);
  } else {
    if (config_.gated_mlp) add(block.gate, names.gate, hidden, inner, config_.mlp_bias);
    add(block.up, names.up, hidden, inner, config_.mlp_bias);
  }
  add(block.down, names.down, inner, hidden, config_.mlp_bias);
  block.out.ends_sublayer = block.down.ends_sublayer = true;
}

void Decoder::add_block_norms(Block& block, BlockNames const& names, std::string const& path) {
  auto const hidden = config_.hidden_size;
  add_norm(block.norm1, path + names.norm1, hidden);
  if (config_.block_form != BlockForm::parallel_one_norm) add_norm(block.norm2, path + names.norm2, hidden);
  if (config_.block_form == BlockForm::sandwich_norm) {
    add_norm(block.norm1_after, path + names.norm1_after, hidden);
    add_norm(block.norm2_after, path + names.norm2_after, hidden);
  }
  if (config_.qk_norm) {
    add_norm(block.q_norm, path + names.q_norm, config_.head_dim);
    add_norm(block.k_norm, path + names.k_norm, config_.head_dim);
  }
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  auto const add = [&](std::initializer_list<Linear*> linears) {
    for (auto* linear : linears)
      if (linear->exists()) all.push_back(linear);
  };
  add({&embedding_project_});
  for (auto& block : blocks_)
    add({&block.q, &block.k, &block.v, &block.qkv, &block.out, &block.gate, &block.up, &block.gate_up,
         &block.down});
  add({&head_project_});
  return all;
}

Linear& Decoder::head() {
  head_ = current_head();
  return head_;
}

Linear Decoder::current_head() const {
  auto head = head_;
  if (config_.tied_embeddings) head.weight = embedding_;
  return head;
}

void Decoder::untie_head() {
  if (!config_.tied_embeddings) return;
  config_.tied_embeddings = false;
  head_.weight = embedding_.clone();
  add_head_tensor(".weight", head_.weight.sizes().vec(), head_.weight);
}

TensorMap Decoder::parameters() {
  TensorMap parameters;
  for (auto const& parameter : layout_)
    if (parameter.tensor->defined()) parameters.emplace(parameter.name, *parameter.tensor);
  return parameters;
}

std::vector<std::vector<std::string>> Decoder::block_parameters() const {
  std::vector<std::vector<std::string>> names(blocks_.size());
  for (auto const& parameter : layout_)
    if (parameter.layer >= 0) names[static_cast<size_t>(parameter.layer)].push_back(parameter.name);
  return names;
}

TensorMap Decoder::dequantized() {
  TensorMap values;
  for (auto const& parameter : layout_)
    if (parameter.linear != nullptr && parameter.linear->quantized)
      values.emplace(parameter.name, parameter.linear->plain_weight());
  return values;
}

void Decoder::set_parameter(std::string const& name, at::Tensor const& value) {
  if (frozen_rows_) frozen_rows_->clear();
  for (auto const& parameter : layout_)
    if (parameter.name == name && value.sizes() == parameter.shape) {
      *parameter.tensor = value;
      if (parameter.linear != nullptr) parameter.linear->quantized.reset();
      return;
    }
  fail_internal(__FILE__, __LINE__, "no parameter of this shape: " + name);
}

TensorMap Decoder::vocabulary() {
  TensorMap tensors;
  for (auto const& parameter : layout_)
    if (!parameter.token_rows.empty()) tensors.emplace(parameter.token_rows, *parameter.tensor);
  return tensors;
}

void Decoder::set_vocabulary(TensorMap const& tensors) {
  if (frozen_rows_) frozen_rows_->clear();
  auto const rows = tensors.begin()->second.size(0);
  for (auto& parameter : layout_) {
    if (parameter.token_rows.empty()) continue;
    auto const& tensor = tensors.at(parameter.token_rows);
    parameter.shape[0] = rows;
    if (tensor.sizes() != at::IntArrayRef(parameter.shape))
      fail_internal(__FILE__, __LINE__, "rows of tokens of another shape: " + parameter.token_rows);
    *parameter.tensor = tensor;
  }
  config_.vocab_size = rows;
}

void Decoder::make_trainable(std::string const& dtype) {
  auto const type = parse_dtype(dtype, "type of trainable parameters");
  for (auto const& parameter : layout_) {
    check_finite_weight(parameter.name, *parameter.tensor, "the model");
    *parameter.tensor = parameter.tensor->detach()
                            .to(type, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous)
                            .set_requires_grad(true);
  }
}

}  // namespace fsllm::detail
