// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

#include <ATen/ops/add.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <functional>

#include "fsllm/core/error.hpp"
#include "fsllm/model/dropout.hpp"
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
  check_cache(input, cache);
  VirtualRows const rows(virtual_tokens_.get(), input, cache, context, compute_);
  AttentionPlan plan(rows, input, cache, score_rule_, context, device_);
  int64_t const taken = virtual_tokens_ ? virtual_tokens_->count() : 0;
  FSLLM_CHECK(
      config_.position != PositionKind::learned || plan.end_position() - taken <= config_.max_positions,
      "a row of {} tokens (the model has {} positions{}). Shorten the rows (llm.tok_len).",
      plan.end_position() - taken, config_.max_positions,
      taken == 0 ? "" : fmt::format(" beside {} virtual tokens", taken));
  if (config_.position == PositionKind::rope) choose_angles(plan);
  auto x = embed(input.ids, rows, plan, context);
  if (stack_adapter_) x = stack_adapter_->before(x, context);
  for (size_t layer = 0; layer < blocks_.size(); ++layer) {
    auto const& block = blocks_[layer];
    x = run_block(block, std::move(x), plan, static_cast<int64_t>(layer), context);
    if (block.adapter) x = block.adapter->apply(x, context);
  }
  plan.advance_cache();
  x = rows.remove(x);
  if (config_.final_norm) x = norm(x, final_norm_);
  if (stack_adapter_) x = stack_adapter_->after(x, context);
  return head_project_.exists() ? head_project_.forward(x, context) : x;
}

at::Tensor Decoder::run_block(Block const& block, at::Tensor x, AttentionPlan& plan, int64_t layer,
                              ForwardContext& context) const {
  switch (config_.block_form) {
    case BlockForm::pre_norm:
      x = at::add(x, attention(block, norm(x, block.norm1), plan, layer, context));
      return at::add(x, adapted_mlp(block, x, norm(x, block.norm2), context));
    case BlockForm::post_norm:
      x = norm(at::add(x, attention(block, x, plan, layer, context)), block.norm1);
      return norm(at::add(x, adapted_mlp(block, x, x, context)), block.norm2);
    case BlockForm::sandwich_norm: {
      auto const mixed = attention(block, norm(x, block.norm1), plan, layer, context);
      x = at::add(x, norm(mixed, block.norm1_after));
      auto const inner = adapted_mlp(block, x, norm(x, block.norm2), context);
      return at::add(x, norm(inner, block.norm2_after));
    }
    case BlockForm::parallel:
    case BlockForm::parallel_one_norm: {
      auto const normed = norm(x, block.norm1);
      auto const mixed = attention(block, normed, plan, layer, context);
      bool const shared = config_.block_form == BlockForm::parallel_one_norm;
      auto const stream = at::add(x, mixed);
      auto const inner = adapted_mlp(block, stream, shared ? normed : norm(x, block.norm2), context);
      return at::add(stream, inner);
    }
  }
  return x;
}

void Decoder::choose_angles(AttentionPlan const& plan) {
  std::tie(cos_, sin_) = rope_.rows(plan.positions(), plan.end_position());
  if (config_.rope_scaling != RopeScaling::longrope || plan.end_position() <= config_.rope_original_positions)
    return;
  auto const [cos, sin] = long_rope_.rows(plan.positions(), plan.end_position());
  auto const is_long = plan.row_ends().gt(config_.rope_original_positions).view({-1, 1, 1});
  cos_ = at::where(is_long, cos, cos_);
  sin_ = at::where(is_long, sin, sin_);
}

at::Tensor Decoder::logits(at::Tensor const& hidden, ForwardContext& context) {
  auto const logits = head().forward(hidden, context);
  return config_.logit_softcap > 0 ? soft_cap(logits, config_.logit_softcap) : logits;
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

void Decoder::set_embedding_adapter(std::shared_ptr<EmbeddingAdapter> adapter) {
  embedding_adapter_ = std::move(adapter);
}

void Decoder::set_stack_adapter(std::shared_ptr<StackAdapter> adapter) {
  stack_adapter_ = std::move(adapter);
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

void Decoder::check_cache(RaggedInput const& input, KvCache const* cache) const {
  for (int64_t row = 0; cache != nullptr && row < input.num_rows(); ++row) {
    auto const length = input.offsets[static_cast<size_t>(row) + 1] - input.offsets[static_cast<size_t>(row)];
    FSLLM_CHECK(!config_.rope_changes(cache->past(row), cache->past(row) + length),
                "{} cached tokens and {} more (LongRoPE turns all tokens anew beyond {}). Restart the row.",
                cache->past(row), length, config_.rope_original_positions);
  }
}

at::Tensor Decoder::embeddings(at::Tensor const& ids) {
  auto const here = ids.to(device_);
  auto x = at::embedding(embedding_, here);
  if (embedding_adapter_) x = embedding_adapter_->apply(here, x.to(compute_));
  if (config_.embedding_scale == 1) return x;
  return at::mul(x.to(compute_), at::scalar_tensor(config_.embedding_scale, at::dtype(compute_)));
}

at::Tensor Decoder::embed(at::Tensor const& ids, VirtualRows const& rows, AttentionPlan const& plan,
                          ForwardContext& context) {
  auto x = rows.insert(embeddings(ids).to(compute_));
  if (embedding_project_.exists()) x = embedding_project_.forward(x, context);
  if (config_.embedding_norm) x = norm(x, embedding_norm_);
  if (positions_.defined()) {
    auto const entries =
        config_.position_offset == 0 ? plan.positions() : plan.positions().add(config_.position_offset);
    x = at::add(x, at::embedding(positions_, entries).to(compute_));
  }
  return dropped(x, config_.embedding_dropout, context, "the embeddings");
}

at::Tensor Decoder::norm(at::Tensor const& x, Norm const& norm) const {
  switch (config_.norm) {
    case NormKind::rms:
      return rms_norm(x, norm.weight, config_.norm_eps);
    case NormKind::rms_one_plus: {
      auto const wide = compute_ == at::kDouble ? at::kDouble : at::kFloat;
      return rms_norm(x, norm.weight.to(wide).add(1), config_.norm_eps);
    }
    case NormKind::layer:
      return at::layer_norm(x, {x.size(-1)}, norm.weight.to(compute_), norm.bias.to(compute_),
                            config_.norm_eps);
  }
  return x;
}

/// q [N, heads, D], k and v [N, kv_heads, D].
std::tuple<at::Tensor, at::Tensor, at::Tensor> Decoder::project_qkv(Block const& block, at::Tensor const& x,
                                                                    ForwardContext& context) const {
  auto const heads = config_.num_heads, kv_heads = config_.num_kv_heads, dim = config_.head_dim;
  switch (config_.qkv) {
    case QkvKind::concatenated: {
      auto const all = block.qkv.forward(x, context).view({-1, heads + 2 * kv_heads, dim});
      auto const parts = at::split_with_sizes(all, {heads, kv_heads, kv_heads}, 1);
      return {parts[0], parts[1], parts[2]};
    }
    case QkvKind::per_head: {
      auto const group = heads / kv_heads;
      auto const all = block.qkv.forward(x, context).view({-1, kv_heads, group + 2, dim});
      auto const parts = at::split_with_sizes(all, {group, 1, 1}, 2);
      return {parts[0].reshape({-1, heads, dim}), parts[1].squeeze(2), parts[2].squeeze(2)};
    }
    case QkvKind::separate:
      break;
  }
  return {block.q.forward(x, context).view({-1, heads, dim}),
          block.k.forward(x, context).view({-1, kv_heads, dim}),
          block.v.forward(x, context).view({-1, kv_heads, dim})};
}

at::Tensor Decoder::attention(Block const& block, at::Tensor const& x, AttentionPlan& plan, int64_t layer,
                              ForwardContext& context) const {
  auto [q, k, v] = project_qkv(block, x, context);
  if (config_.qk_norm) {
    q = norm(q.view({-1, config_.head_dim}), block.q_norm).view(q.sizes());
    k = norm(k.view({-1, config_.head_dim}), block.k_norm).view(k.sizes());
  }
  if (config_.position == PositionKind::rope) {
    q = rotate(q, cos_, sin_, config_.rotary_neighbours);
    k = rotate(k, cos_, sin_, config_.rotary_neighbours);
  }
  auto const mixed = plan.attend(q, k, v, layer, config_.window_of(static_cast<size_t>(layer)));
  return dropped(block.out.forward(mixed, context), config_.residual_dropout, context, block.out.name);
}

at::Tensor Decoder::mlp(Block const& block, at::Tensor const& x, ForwardContext& context) const {
  auto const inner = config_.gated_mlp ? gated(block, x, context)
                                       : activate(block.up.forward(x, context), config_.activation);
  return dropped(block.down.forward(inner, context), config_.residual_dropout, context, block.down.name);
}

at::Tensor Decoder::gated(Block const& block, at::Tensor const& x, ForwardContext& context) const {
  at::Tensor gate, up;
  if (config_.fused_gate_up) {
    auto const parts = block.gate_up.forward(x, context).chunk(2, 1);
    gate = parts[0], up = parts[1];
  } else {
    up = block.up.forward(x, context);
    gate = block.gate.forward(x, context);
  }
  return config_.activation == ActivationKind::silu ? swiglu(gate, up)
                                                    : at::mul(activate(gate, config_.activation), up);
}

at::Tensor Decoder::adapted_mlp(Block const& block, at::Tensor const& x, at::Tensor const& normed,
                                ForwardContext& context) const {
  auto const y = mlp(block, normed, context);
  return block.adapter ? block.adapter->parallel_to_mlp(x, y, context) : y;
}

}  // namespace fsllm::detail
