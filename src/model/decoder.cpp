// SPDX-License-Identifier: Apache-2.0
#include "decoder.hpp"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/split_with_sizes.h>

#include "backward_call.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/model/dropout.hpp"
#include "functions.hpp"
#include "pass_plan.hpp"
#include "recompute.hpp"

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

at::Tensor activated(at::Tensor const& x, ActivationKind kind) {
  return cheap(activate(x, kind), [x, kind] { return activate(x, kind); });
}

/// The linear whose output is only added to the stream that leaves the block, if its adapter looks at no more
/// of it.
Linear const* last_addend(Block const& block, BlockForm form) {
  bool const is_normed = form == BlockForm::post_norm || form == BlockForm::sandwich_norm;
  auto const* adapter = dynamic_cast<AddsToOutput const*>(block.down.adapter.get());
  bool const only_added = !is_normed && !block.adapter && adapter != nullptr && adapter->only_adds();
  return only_added ? &block.down : nullptr;
}

}  // namespace

at::Tensor Decoder::hidden_states(at::Tensor const& ids, Pass const& pass) const {
  // A step of one token is some 500 small operations: without autograd's part each is cheaper by a third.
  std::optional<at::AutoDispatchBelowADInplaceOrView> below;
  if (pass.has_cache() && !at::GradMode::is_enabled()) below.emplace();
  if (hooks_) hooks_->before_pass();
  auto const& plan = pass.plan();
  auto const inner = pass.with_virtual_tokens();
  auto const behind = behind_frozen_blocks(ids, pass);
  auto x = behind ? *behind : embed(ids, inner);
  if (stack_adapter_) x = stack_adapter_->before(x, inner);
  for (auto layer = static_cast<size_t>(behind ? frozen_rows_->blocks() : 0); layer < blocks_.size(); ++layer)
    x = run_layer(layer, std::move(x), inner);
  x = plan.rows.remove(x);
  if (config_.final_norm) x = norm(x, final_norm_);
  if (stack_adapter_) x = stack_adapter_->after(x, pass);
  return head_project_.exists() ? head_project_.forward(x, pass) : x;
}

at::Tensor Decoder::run_layer(size_t layer, at::Tensor x, Pass const& pass) const {
  auto const number = static_cast<int64_t>(layer);
  if (hooks_) {
    hooks_->before_forward(number);
    x = with_backward_call(x, [hooks = hooks_, number] { hooks->after_backward(number); });
  }
  x = run_checkpointed(layer, std::move(x), pass);
  if (hooks_) {
    hooks_->after_forward(number);
    x = with_backward_call(x, [hooks = hooks_, number] { hooks->before_backward(number); });
  }
  return x;
}

at::Tensor Decoder::run_checkpointed(size_t layer, at::Tensor x, Pass const& pass) const {
  auto const& block = blocks_[layer];
  auto const run = [this, &block, layer](at::Tensor input, Pass const& all) {
    auto const y = run_block(block, std::move(input), static_cast<int64_t>(layer), all);
    return block.adapter ? block.adapter->apply(y, all) : y;
  };
  switch (checkpointing_) {
    case Checkpointing::none:
      break;
    case Checkpointing::block:
      return recomputed(
          {x}, [run, pass](auto const& inputs) { return run(inputs[0], pass); },
          last_addend(block, config_.block_form));
    case Checkpointing::selective: {
      CheapValues const not_kept;
      return run(std::move(x), pass);
    }
  }
  return run(std::move(x), pass);
}

at::Tensor Decoder::run_block(Block const& block, at::Tensor x, int64_t layer, Pass const& pass) const {
  switch (config_.block_form) {
    case BlockForm::pre_norm:
      x = at::add(x, attention(block, sublayer_norm(x, block.norm1), layer, pass));
      return at::add(x, adapted_mlp(block, x, sublayer_norm(x, block.norm2), pass));
    case BlockForm::post_norm:
      x = norm(at::add(x, attention(block, x, layer, pass)), block.norm1);
      return norm(at::add(x, adapted_mlp(block, x, x, pass)), block.norm2);
    case BlockForm::sandwich_norm: {
      auto const mixed = attention(block, sublayer_norm(x, block.norm1), layer, pass);
      x = at::add(x, norm(mixed, block.norm1_after));
      auto const inner = adapted_mlp(block, x, sublayer_norm(x, block.norm2), pass);
      return at::add(x, norm(inner, block.norm2_after));
    }
    case BlockForm::parallel:
    case BlockForm::parallel_one_norm: {
      auto const normed = sublayer_norm(x, block.norm1);
      auto const mixed = attention(block, normed, layer, pass);
      bool const shared = config_.block_form == BlockForm::parallel_one_norm;
      auto const stream = at::add(x, mixed);
      auto const inner = adapted_mlp(block, stream, shared ? normed : sublayer_norm(x, block.norm2), pass);
      return at::add(stream, inner);
    }
  }
  return x;
}

at::Tensor Decoder::logits(at::Tensor const& hidden, Pass const& pass) const {
  auto const logits = current_head().forward(hidden, pass);
  return config_.logit_softcap > 0 ? soft_cap(logits, config_.logit_softcap) : logits;
}

bool Decoder::head_requires_grad() const {
  auto const head = current_head();
  return head.adapter != nullptr || head.weight.requires_grad() ||
         (head.bias.defined() && head.bias.requires_grad());
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

void Decoder::set_layer_hooks(std::shared_ptr<LayerHooks> hooks) {
  hooks_ = std::move(hooks);
}

at::Tensor Decoder::embeddings(at::Tensor const& ids) const {
  auto const here = ids.to(device_);
  auto x = at::embedding(embedding_, here);
  if (embedding_adapter_) x = embedding_adapter_->apply(here, x.to(compute_));
  if (config_.embedding_scale == 1) return x;
  return at::mul(x.to(compute_), at::scalar_tensor(config_.embedding_scale, at::dtype(compute_)));
}

at::Tensor Decoder::embed(at::Tensor const& ids, Pass const& pass) const {
  auto x = pass.plan().rows.insert(embeddings(ids).to(compute_));
  if (embedding_project_.exists()) x = embedding_project_.forward(x, pass);
  if (config_.embedding_norm) x = norm(x, embedding_norm_);
  if (positions_.defined()) {
    auto const& places = pass.plan().attention.positions();
    auto const entries = config_.position_offset == 0 ? places : places.add(config_.position_offset);
    x = at::add(x, at::embedding(positions_, entries).to(compute_));
  }
  return dropped(x, config_.embedding_dropout, pass, "the embeddings");
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

at::Tensor Decoder::sublayer_norm(at::Tensor const& x, Norm const& by) const {
  return cheap(norm(x, by), [this, x, &by] { return norm(x, by); });
}

/// q [N, heads, D], k and v [N, kv_heads, D].
std::tuple<at::Tensor, at::Tensor, at::Tensor> Decoder::project_qkv(Block const& block, at::Tensor const& x,
                                                                    Pass const& pass) const {
  auto const heads = config_.num_heads, kv_heads = config_.num_kv_heads, dim = config_.head_dim;
  switch (config_.qkv) {
    case QkvKind::concatenated: {
      auto const all = block.qkv.forward(x, pass).view({-1, heads + 2 * kv_heads, dim});
      auto const parts = at::split_with_sizes(all, {heads, kv_heads, kv_heads}, 1);
      return {parts[0], parts[1], parts[2]};
    }
    case QkvKind::per_head: {
      auto const group = heads / kv_heads;
      auto const all = block.qkv.forward(x, pass).view({-1, kv_heads, group + 2, dim});
      auto const parts = at::split_with_sizes(all, {group, 1, 1}, 2);
      return {parts[0].reshape({-1, heads, dim}), parts[1].squeeze(2), parts[2].squeeze(2)};
    }
    case QkvKind::separate:
      break;
  }
  return {block.q.forward(x, pass).view({-1, heads, dim}), block.k.forward(x, pass).view({-1, kv_heads, dim}),
          block.v.forward(x, pass).view({-1, kv_heads, dim})};
}

at::Tensor Decoder::attention(Block const& block, at::Tensor const& x, int64_t layer,
                              Pass const& pass) const {
  auto const& plan = pass.plan();
  auto [q, k, v] = project_qkv(block, x, pass);
  if (config_.qk_norm) {
    q = norm(q.view({-1, config_.head_dim}), block.q_norm).view(q.sizes());
    k = norm(k.view({-1, config_.head_dim}), block.k_norm).view(k.sizes());
  }
  if (config_.position == PositionKind::rope) {
    q = rotate(q, plan.cos, plan.sin, config_.rotary_neighbours);
    k = rotate(k, plan.cos, plan.sin, config_.rotary_neighbours);
  }
  auto const window = config_.window_of(static_cast<size_t>(layer));
  auto const mixed = cheap({q, k, v}, [pass, layer, window](auto const& qkv) {
    return pass.plan().attention.attend(qkv[0], qkv[1], qkv[2], layer, window);
  });
  return dropped_residual(block.out.forward(mixed, pass), block.out, pass);
}

at::Tensor Decoder::mlp(Block const& block, at::Tensor const& x, Pass const& pass) const {
  auto const inner =
      config_.gated_mlp ? gated(block, x, pass) : activated(block.up.forward(x, pass), config_.activation);
  return dropped_residual(block.down.forward(inner, pass), block.down, pass);
}

/// What `last` gives to the residual stream.
at::Tensor Decoder::dropped_residual(at::Tensor const& y, Linear const& last, Pass const& pass) const {
  if (config_.residual_dropout == 0) return y;
  return dropped(y, config_.residual_dropout, pass, last.name + ".residual_dropout");
}

at::Tensor Decoder::gated(Block const& block, at::Tensor const& x, Pass const& pass) const {
  at::Tensor gate, up;
  if (config_.fused_gate_up) {
    auto const parts = block.gate_up.forward(x, pass).chunk(2, 1);
    gate = parts[0], up = parts[1];
  } else {
    up = block.up.forward(x, pass);
    gate = block.gate.forward(x, pass);
  }
  auto const kind = config_.activation;
  if (kind == ActivationKind::silu) return cheap(swiglu(gate, up), [gate, up] { return swiglu(gate, up); });
  return cheap(at::mul(activated(gate, kind), up),
               [gate, up, kind] { return at::mul(activate(gate, kind), up); });
}

at::Tensor Decoder::adapted_mlp(Block const& block, at::Tensor const& x, at::Tensor const& normed,
                                Pass const& pass) const {
  auto const y = mlp(block, normed, pass);
  return block.adapter ? block.adapter->parallel_to_mlp(x, y, pass) : y;
}

}  // namespace fsllm::detail

namespace fsllm {

Checkpointing parse_checkpointing(std::string const& name) {
  if (name == "block") return Checkpointing::block;
  return name == "selective" ? Checkpointing::selective : Checkpointing::none;
}

void set_checkpointing(CausalLM& model, Checkpointing checkpointing) {
  dynamic_cast<detail::Decoder&>(model).set_checkpointing(checkpointing);
}

}  // namespace fsllm
