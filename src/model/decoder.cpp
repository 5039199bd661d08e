// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/split_with_sizes.h>

#include <algorithm>
#include <functional>

#include "fsllm/core/error.hpp"
#include "functions.hpp"

namespace fsllm::detail {
namespace {

at::Tensor activate(at::Tensor const& x, ActivationKind kind) {
  switch (kind) {
    case ActivationKind::silu:
      return at::silu(x);
    case ActivationKind::gelu:
      return at::gelu(x);
    case ActivationKind::gelu_tanh:
      return at::gelu(x, "tanh");
    case ActivationKind::relu:
      return at::relu(x);
  }
  return x;
}

}  // namespace

at::Tensor Decoder::hidden_states(RaggedInput const& input, ForwardContext& context, KvCache* cache) {
  check_input(input);
  VirtualRows const rows(virtual_tokens_.get(), input, cache, context, compute_);
  AttentionPlan plan(rows, cache, device_);
  int64_t const taken = virtual_tokens_ ? virtual_tokens_->count() : 0;
  FSLLM_CHECK(
      config_.position != PositionKind::learned || plan.end_position() - taken <= config_.max_positions,
      "a row of {} tokens (the model has {} positions{}). Shorten the rows (llm.tok_len).",
      plan.end_position() - taken, config_.max_positions,
      taken == 0 ? "" : fmt::format(" beside {} virtual tokens", taken));
  if (config_.position == PositionKind::rope)
    std::tie(cos_, sin_) = rope_.rows(plan.positions(), plan.end_position());
  auto x = embed(input.ids, rows, plan);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    auto const& block = blocks_[layer];
    x = at::add(x, attention(block, norm(x, block.norm1), plan, static_cast<int64_t>(layer), context));
    x = at::add(x, mlp(block, norm(x, block.norm2), context));
    if (block.adapter) x = block.adapter->apply(x, context);
  }
  plan.advance_cache();
  return norm(rows.remove(x), final_norm_);
}

at::Tensor Decoder::logits(at::Tensor const& hidden) {
  ForwardContext context;
  if (!config_.tied_embeddings) return head_.forward(hidden, context);
  return Linear{.name = head_.name, .weight = embedding_, .bias = {}, .conv1d = false, .adapter = {}}.forward(
      hidden, context);
}

void Decoder::set_virtual_tokens(std::shared_ptr<VirtualTokens> tokens) {
  int64_t const all = config_.max_positions + (virtual_tokens_ ? virtual_tokens_->count() : 0);
  int64_t const taken = tokens ? tokens->count() : 0;
  FSLLM_CHECK(all == 0 || taken < all,
              "{} virtual tokens (the model has {} positions). Lower num_virtual_tokens.", taken, all);
  config_.max_positions = all == 0 ? 0 : all - taken;
  virtual_tokens_ = std::move(tokens);
}

void Decoder::set_block_adapter(int64_t layer, std::shared_ptr<BlockAdapter> adapter) {
  blocks_.at(static_cast<size_t>(layer)).adapter = std::move(adapter);
}

void Decoder::check_input(RaggedInput const& input) const {
  auto const& offsets = input.offsets;
  bool const rows_fit =
      input.num_rows() > 0 && input.ids.numel() == offsets.back() &&
      std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>()) == offsets.end();
  FSLLM_CHECK(rows_fit, "a batch of {} tokens in {} rows (every row needs a token). Correct the rows.",
              input.ids.numel(), input.num_rows());
  auto const least = input.ids.min().item<int64_t>(), most = input.ids.max().item<int64_t>();
  FSLLM_CHECK(least >= 0 && most < config_.vocab_size,
              "token id {} (the model's vocabulary has {} tokens). Use the tokenizer of this model.",
              least < 0 ? least : most, config_.vocab_size);
}

at::Tensor Decoder::embeddings(at::Tensor const& ids) {
  return at::embedding(embedding_, ids.to(device_));
}

at::Tensor Decoder::embed(at::Tensor const& ids, VirtualRows const& rows, AttentionPlan const& plan) {
  auto x = rows.insert(embeddings(ids).to(compute_));
  if (positions_.defined()) x = at::add(x, at::embedding(positions_, plan.positions()).to(compute_));
  return x;
}

at::Tensor Decoder::norm(at::Tensor const& x, Norm const& norm) const {
  if (config_.norm == NormKind::rms) return rms_norm(x, norm.weight, config_.norm_eps);
  return at::layer_norm(x, {config_.hidden_size}, norm.weight.to(compute_), norm.bias.to(compute_),
                        config_.norm_eps);
}

at::Tensor Decoder::attention(Block const& block, at::Tensor const& x, AttentionPlan& plan, int64_t layer,
                              ForwardContext& context) const {
  auto const heads = config_.num_heads, kv_heads = config_.num_kv_heads, dim = config_.head_dim;
  at::Tensor q, k, v;  // [N, heads or kv_heads, D]
  if (config_.fused_qkv) {
    auto const all = block.qkv.forward(x, context).view({-1, heads + 2 * kv_heads, dim});
    auto const parts = at::split_with_sizes(all, {heads, kv_heads, kv_heads}, 1);
    q = parts[0], k = parts[1], v = parts[2];
  } else {
    q = block.q.forward(x, context).view({-1, heads, dim});
    k = block.k.forward(x, context).view({-1, kv_heads, dim});
    v = block.v.forward(x, context).view({-1, kv_heads, dim});
  }
  if (config_.position == PositionKind::rope) {
    q = rotate(q, cos_, sin_);
    k = rotate(k, cos_, sin_);
  }
  auto const mixed = plan.attend(q, k, v, layer, config_.window_of(static_cast<size_t>(layer)));
  return block.out.forward(mixed, context);
}

at::Tensor Decoder::mlp(Block const& block, at::Tensor const& x, ForwardContext& context) const {
  auto const up = block.up.forward(x, context);
  if (!config_.gated_mlp) return block.down.forward(activate(up, config_.activation), context);
  auto const gate = block.gate.forward(x, context);
  auto const inner = config_.activation == ActivationKind::silu
                         ? swiglu(gate, up)
                         : at::mul(activate(gate, config_.activation), up);
  return block.down.forward(inner, context);
}

}  // namespace fsllm::detail
