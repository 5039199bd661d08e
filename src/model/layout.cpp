// SPDX-License-Identifier: Apache-2.0
// The decoder's modules and parameters: which there are, what they are called, who owns them.
#include <fmt/core.h>

#include "decoder.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/model/dtype.hpp"

namespace fsllm::detail {

Decoder::Decoder(ModelConfig config, Family const& family, std::string const& prefix, at::ScalarType compute,
                 c10::Device device)
    : config_(std::move(config)), compute_(compute), device_(device) {
  auto const hidden = config_.hidden_size;
  if (config_.position == PositionKind::rope) rope_ = RopeTable(config_, compute, device);
  layout_.push_back({prefix + family.embedding + ".weight", {config_.vocab_size, hidden}, &embedding_});
  if (config_.position == PositionKind::learned)
    layout_.push_back({prefix + family.positions + ".weight", {config_.max_positions, hidden}, &positions_});
  blocks_.resize(static_cast<size_t>(config_.num_layers));
  for (size_t layer = 0; layer < blocks_.size(); ++layer) add_block(blocks_[layer], family, prefix, layer);
  add_norm(final_norm_, prefix + family.final_norm);
  head_.name = family.head;
  if (!config_.tied_embeddings)
    layout_.push_back({family.head + ".weight", {config_.vocab_size, hidden}, &head_.weight});
}

void Decoder::add_norm(Norm& norm, std::string const& path) {
  layout_.push_back({path + ".weight", {config_.hidden_size}, &norm.weight});
  if (config_.norm == NormKind::layer) layout_.push_back({path + ".bias", {config_.hidden_size}, &norm.bias});
}

void Decoder::add_linear(Linear& linear, std::string const& module, std::string const& path, int64_t in,
                         int64_t out, bool bias) {
  linear.name = module;
  linear.conv1d = config_.conv1d;
  auto const shape = config_.conv1d ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in};
  layout_.push_back({path + ".weight", shape, &linear.weight});
  if (bias) layout_.push_back({path + ".bias", {out}, &linear.bias});
}

void Decoder::add_block(Block& block, Family const& family, std::string const& prefix, size_t layer) {
  auto const& names = family.block;
  auto const below = fmt::format("{}.{}.", family.blocks, layer);
  auto const add = [&](Linear& linear, std::string const& name, int64_t in, int64_t out, bool bias) {
    add_linear(linear, family.prefix + below + name, prefix + below + name, in, out, bias);
  };
  auto const hidden = config_.hidden_size, inner = config_.intermediate_size;
  auto const q_size = config_.num_heads * config_.head_dim, kv_size = config_.num_kv_heads * config_.head_dim;
  add_norm(block.norm1, prefix + below + names.norm1);
  if (config_.fused_qkv) {
    add(block.qkv, names.qkv, hidden, q_size + 2 * kv_size, config_.qkv_bias);
  } else {
    add(block.q, names.q, hidden, q_size, config_.qkv_bias);
    add(block.k, names.k, hidden, kv_size, config_.qkv_bias);
    add(block.v, names.v, hidden, kv_size, config_.qkv_bias);
  }
  add(block.out, names.out, q_size, hidden, config_.out_bias);
  add_norm(block.norm2, prefix + below + names.norm2);
  if (config_.gated_mlp) add(block.gate, names.gate, hidden, inner, config_.mlp_bias);
  add(block.up, names.up, hidden, inner, config_.mlp_bias);
  add(block.down, names.down, inner, hidden, config_.mlp_bias);
}

std::vector<Linear*> Decoder::linears() {
  std::vector<Linear*> all;
  for (auto& block : blocks_)
    for (auto* linear :
         {&block.q, &block.k, &block.v, &block.qkv, &block.out, &block.gate, &block.up, &block.down})
      if (linear->weight.defined()) all.push_back(linear);
  return all;
}

TensorMap Decoder::parameters() {
  TensorMap parameters;
  for (auto const& parameter : layout_) parameters.emplace(parameter.name, *parameter.tensor);
  return parameters;
}

void Decoder::set_parameter(std::string const& name, at::Tensor const& value) {
  for (auto const& parameter : layout_)
    if (parameter.name == name && parameter.tensor->sizes() == value.sizes()) {
      *parameter.tensor = value;
      return;
    }
  fail_internal(__FILE__, __LINE__, "no parameter of this shape: " + name);
}

void Decoder::make_trainable(std::string const& dtype) {
  auto const type = parse_dtype(dtype, "type of trainable parameters");
  for (auto const& parameter : layout_)
    *parameter.tensor = parameter.tensor->detach()
                            .to(type, /*non_blocking=*/false, /*copy=*/true, at::MemoryFormat::Contiguous)
                            .set_requires_grad(true);
}

}  // namespace fsllm::detail
