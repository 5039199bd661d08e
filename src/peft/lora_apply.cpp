// SPDX-License-Identifier: Apache-2.0
// What LoRA and DoRA compute in one Linear, and LoRA in the embedding.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>

#include "fsllm/model/dropout.hpp"
#include "fsllm/model/low_rank_update.hpp"
#include "lora.hpp"

namespace fsllm::detail {
namespace {

/// PEFT's module that drops the input of this Linear's branch.
std::string site_of(Linear const& base) {
  return base.name + ".lora_dropout";
}

}  // namespace

at::Tensor LoraAdapter::apply(at::Tensor const& x, at::Tensor const& y, Linear const& base,
                              Pass const& pass) {
  if (magnitude.defined()) return apply_dora(x, y, base, pass);
  auto const mask = keep_mask(x, dropout, pass, site_of(base));
  auto const segments = pass.segments();
  bool const slots = !segments.empty() && segments.front().slot >= 0;
  if (core.defined()) {  // (R A) in the place of A
    if (!slots) return add_low_rank(x, y, at::mm(core, a), b, mask, 1 - dropout, scale);
    auto const of_all = b.unsqueeze(0).expand({core_slots.size(0), -1, -1});
    return add_low_rank(x, y, at::matmul(core_slots, a), of_all, segments, mask, 1 - dropout, scale);
  }
  if (slots) return add_low_rank(x, y, a_slots, b_slots, segments, mask, 1 - dropout, scale);
  return add_low_rank(x, y, a, b, mask, 1 - dropout, scale);
}

/// DoRA (Liu et al. 2024, eq. 5): m ⊙ (W + s·B·A) x / ‖W + s·B·A‖ + b, the norm held constant (section 4.3).
/// With dropout PEFT rescales what the frozen weight makes of the dropped input, and so does this.
at::Tensor LoraAdapter::apply_dora(at::Tensor const& x, at::Tensor const& y, Linear const& base,
                                   Pass const& pass) const {
  auto const type = x.scalar_type();
  auto const input = dropped(x, dropout, pass, site_of(base));
  at::Tensor frozen = y;
  if (!input.is_same(x)) {
    auto plain = base;
    plain.bias.reset();
    plain.adapter.reset();
    frozen = plain.forward(input, pass);
  } else if (base.bias.defined()) {
    frozen = y.sub(base.bias.to(type));
  }
  auto const ratio = magnitude.div(norms_of_rows(*this, base)).to(type);
  auto const low_rank = at::mm(at::mm(input, a.to(type).t()), b.to(type).t());
  return y.add(frozen.mul(ratio.sub(1))).add(low_rank.mul(ratio), scale);
}

at::Tensor LoraEmbedding::apply(at::Tensor const& ids, at::Tensor const& x) {
  auto const type = x.scalar_type();
  auto const rows = at::embedding(a.t(), ids).to(type);  // [M, r]
  return at::add(x, at::mm(rows, b.to(type).t()), scale);
}

at::Tensor squares_of_rows(Linear const& base) {
  return at::sum(at::square(base.matrix().to(at::kFloat)), 1);
}

/// ‖w + s·bA‖² = ‖w‖² + 2s·b·(A w) + s²·b (A Aᵀ) bᵀ for each row: no matrix of the weight's size.
at::Tensor norms_of_rows(LoraAdapter const& adapter, Linear const& base) {
  at::NoGradGuard const no_grad;
  auto const& b = adapter.b;
  auto const with_weight = at::mm(base.matrix().to(at::kFloat), adapter.a.t());  // [out, r]
  auto const with_itself = at::mm(b, at::mm(adapter.a, adapter.a.t()));
  auto const cross = with_weight.mul_(2).add_(with_itself, adapter.scale).mul_(b);
  return adapter.row_squares.add(at::sum(cross, 1), adapter.scale).sqrt_();
}

}  // namespace fsllm::detail
