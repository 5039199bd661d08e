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
  AttentionPlan plan(input, cache, device_);
  FSLLM_CHECK(config_.position != PositionKind::learned || plan.end_position() <= config_.max_positions,
              "a row of {} tokens (the model has {} positions). Shorten the rows (llm.tok_len).",
              plan.end_position(), config_.max_positions);
  if (config_.position == PositionKind::rope)
    std::tie(cos_, sin_) = rope_.rows(plan.positions(), plan.end_position());
  auto x = embed(input, plan);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    auto const& block = blocks_[layer];
    x = at::add(x, attention(block, norm(x, block.norm1), plan, static_cast<int64_t>(layer), context));
    x = at::add(x, mlp(block, norm(x, block.norm2), context));
  }
  if (cache != nullptr)
    for (int64_t row = 0; row < input.num_rows(); ++row)
      cache->advance(row,
                     input.offsets[static_cast<size_t>(row) + 1] - input.offsets[static_cast<size_t>(row)]);
  return norm(x, final_norm_);
}

at::Tensor Decoder::logits(at::Tensor const& hidden) {
  ForwardContext context;
  if (!config_.tied_embeddings) return head_.forward(hidden, context);
  return Linear{.name = head_.name, .weight = embedding_, .bias = {}, .conv1d = false, .adapter = {}}.forward(
      hidden, context);
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

at::Tensor Decoder::embed(RaggedInput const& input, AttentionPlan const& plan) const {
  auto x = at::embedding(embedding_, input.ids.to(device_)).to(compute_);
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
