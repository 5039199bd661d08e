// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include "fsllm/core/error.hpp"
#include "lora.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

/// scale · gᵀ h, g [N, out], h [N, r], as [out, r]: GEMMs are several times faster at the transpose of it.
at::Tensor gradient_of_b(at::Tensor const& g, at::Tensor const& h, double scale, at::ScalarType type) {
  return at::mm(h.t(), g).mul_(scale).t().to(type, false, false, at::MemoryFormat::Contiguous);
}

at::Tensor dropped(at::Tensor const& x, at::Tensor const& mask, double keep) {
  return mask.defined() ? at::mul(x, mask).div_(keep) : x;
}

/// Not a tensor argument: custom functions do not take undefined tensors.
struct Dropout {
  at::Tensor mask;
  double keep;
};

/// What both forms save for their backward pass.
struct Saved {
  at::Tensor x, a, b, inner;
  Dropout dropout;
  double scale;

  void into(AutogradContext* ctx) const {
    ctx->save_for_backward({x, a, b, inner, dropout.mask});
    ctx->saved_data["keep"] = dropout.keep;
    ctx->saved_data["scale"] = scale;
  }
  static Saved from(AutogradContext* ctx) {
    auto const saved = ctx->get_saved_variables();
    return {saved[0],
            saved[1],
            saved[2],
            saved[3],
            {saved[4], ctx->saved_data["keep"].toDouble()},
            ctx->saved_data["scale"].toDouble()};
  }
};

struct AddLowRank : Function<AddLowRank> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor y, at::Tensor const& a,
                            at::Tensor const& b, Dropout const& dropout, double scale) {
    auto const type = x.scalar_type();
    auto const inner = at::mm(dropped(x, dropout.mask, dropout.keep), a.to(type).t());  // [N, r]
    y.addmm_(inner, b.to(type).t(), 1, scale);
    Saved{x, a, b, inner, dropout, scale}.into(ctx);
    ctx->mark_dirty({y});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const [x, a, b, inner, dropout, scale] = Saved::from(ctx);
    auto const& [mask, keep] = dropout;
    auto const type = x.scalar_type();
    auto const scaled = at::mm(grads[0], b.to(type)).mul_(scale);  // [N, r], gradient of x Aᵀ
    Tensors result(6);
    if (ctx->needs_input_grad(0)) result[0] = dropped(at::mm(scaled, a.to(type)), mask, keep);
    result[1] = grads[0];
    if (ctx->needs_input_grad(2)) result[2] = at::mm(scaled.t(), dropped(x, mask, keep)).to(a.scalar_type());
    if (ctx->needs_input_grad(3)) result[3] = gradient_of_b(grads[0], inner, scale, b.scalar_type());
    return result;
  }
};

/// Segments, which are no tensors.
struct Parts {
  std::vector<int64_t> tokens, slots;
  /// Calls part(slot, first token, tokens).
  template <class Part>
  void for_each(Part&& part) const {
    int64_t begin = 0;
    for (size_t i = 0; i < tokens.size(); begin += tokens[i++]) part(slots[i], begin, tokens[i]);
  }
};

struct AddLowRankParts : Function<AddLowRankParts> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor y, at::Tensor const& a,
                            at::Tensor const& b, Parts const& parts, Dropout const& dropout, double scale) {
    auto const type = x.scalar_type();
    auto const input = dropped(x, dropout.mask, dropout.keep), at_ = a.to(type), bt = b.to(type);
    auto const inner = at::empty({x.size(0), a.size(1)}, x.options());
    parts.for_each([&](int64_t slot, int64_t begin, int64_t count) {
      auto own = inner.narrow(0, begin, count);
      at::mm_out(own, input.narrow(0, begin, count), at_[slot].t());
      y.narrow(0, begin, count).addmm_(own, bt[slot].t(), 1, scale);
    });
    Saved{x, a, b, inner, dropout, scale}.into(ctx);
    ctx->saved_data["tokens"] = parts.tokens;
    ctx->saved_data["slots"] = parts.slots;
    ctx->mark_dirty({y});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = Saved::from(ctx);
    auto const &x = saved.x, &a = saved.a, &b = saved.b, &inner = saved.inner, &mask = saved.dropout.mask;
    double const keep = saved.dropout.keep, scale = saved.scale;
    Parts const parts{ctx->saved_data["tokens"].toIntVector(), ctx->saved_data["slots"].toIntVector()};
    auto const type = x.scalar_type();
    auto const input = dropped(x, mask, keep), at_ = a.to(type), bt = b.to(type);
    Tensors result(7);
    bool const to_input = ctx->needs_input_grad(0);
    if (to_input) result[0] = at::empty_like(x);
    result[1] = grads[0];
    result[2] = at::zeros_like(a);
    bool const to_b = ctx->needs_input_grad(3);
    if (to_b) result[3] = at::zeros_like(b);
    parts.for_each([&](int64_t slot, int64_t begin, int64_t count) {
      auto const grad = grads[0].narrow(0, begin, count);
      auto const scaled = at::mm(grad, bt[slot]).mul_(scale);
      if (to_input) {
        auto own = result[0].narrow(0, begin, count);
        at::mm_out(own, scaled, at_[slot]);
      }
      result[2][slot].copy_(at::mm(scaled.t(), input.narrow(0, begin, count)));
      if (to_b) result[3][slot].copy_(at::mm(inner.narrow(0, begin, count).t(), grad).mul_(scale).t());
    });
    if (to_input) result[0] = dropped(result[0], mask, keep);
    return result;
  }
};

}  // namespace

at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        std::span<PassSegment const> segments, at::Tensor const& keep_mask, double keep,
                        double scale) {
  Parts parts;
  int64_t tokens = 0;
  for (auto const& segment : segments) {
    parts.tokens.push_back(segment.tokens);
    parts.slots.push_back(segment.slot);
    tokens += segment.tokens;
  }
  if (tokens != x.size(0))
    fail_internal(__FILE__, __LINE__, "adapters of segments for other tokens than the pass's");
  return AddLowRankParts::apply(x, y, a, b, parts, Dropout{keep_mask, keep}, scale);
}

at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        at::Tensor const& keep_mask, double keep, double scale) {
  return AddLowRank::apply(x, y, a, b, Dropout{keep_mask, keep}, scale);
}

}  // namespace fsllm::detail
