// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/low_rank_update.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <utility>

#include "fsllm/core/error.hpp"
#include "stored_type.hpp"

namespace fsllm {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;
using detail::as_floats;
using detail::cpu_kernels;
using detail::stored_type;

/// Multiplications that are worth a thread, and the columns that one takes at least.
constexpr int64_t kGrain = int64_t{1} << 18, kColumns = 64;

/// Ranks up to which the loops are faster than a GEMM, which packs its operands.
constexpr int64_t kMostRank = 32;

bool have_loops(at::Tensor const& x, int64_t rank) {
  return rank <= kMostRank && detail::have_kernels(x) && x.size(0) > 0;
}

/// factor xᵀ, [r, N], of x [N, size] and factor [r, size].
at::Tensor inner_of(at::Tensor const& x, at::Tensor const& factor) {
  int64_t const rank = factor.size(0), size = x.size(1), count = x.size(0);
  if (!have_loops(x, rank)) return at::mm(x, factor.to(x.scalar_type()).t()).t();
  auto const values = x.contiguous(), by = as_floats(factor);
  auto inner = at::empty({rank, count}, x.options().dtype(at::kFloat));
  detail::SkinnyProduct const product{.type = *stored_type(x.scalar_type()),
                                      .weight = values.const_data_ptr(),
                                      .x = by.const_data_ptr<float>(),
                                      .rows = rank,
                                      .terms = size,
                                      .y = inner.mutable_data_ptr<float>(),
                                      .stride = count};
  at::parallel_for(0, count, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, rank * size)),
                   [&](int64_t begin, int64_t end) { cpu_kernels()->skinny_product(product, begin, end); });
  return inner;
}

void multiply(detail::ThinProduct const& product, int64_t columns) {
  int64_t const parts = (columns + kColumns - 1) / kColumns;
  int64_t const of_part = std::max<int64_t>(1, product.rows * product.terms * kColumns);
  at::parallel_for(0, parts, std::max<int64_t>(1, kGrain / of_part), [&](int64_t begin, int64_t end) {
    cpu_kernels()->thin_product(product, begin * kColumns, std::min(columns, end * kColumns));
  });
}

/// y (+)= innerᵀ factor, of y [N, size], inner [r, N] and factor [r, size].
void outer_into(at::Tensor& y, at::Tensor const& inner, at::Tensor const& factor, bool adds) {
  auto const type = y.scalar_type();
  if (!have_loops(y, factor.size(0)) || inner.scalar_type() != at::kFloat) {
    auto const left = inner.to(type).t(), right = factor.to(type);
    if (adds)
      y.addmm_(left, right);
    else
      at::mm_out(y, left, right);
    return;
  }
  auto const left = inner.contiguous(), right = as_floats(factor);
  multiply({.left = left.const_data_ptr<float>(),
            .left_row = 1,
            .left_term = left.size(1),
            .out_type = *stored_type(type),
            .right = right.const_data_ptr(),
            .right_row = right.size(1),
            .rows = y.size(0),
            .terms = right.size(0),
            .out = y.mutable_data_ptr(),
            .out_row = y.stride(0),
            .adds = adds},
           y.size(1));
}

at::Tensor outer(at::Tensor const& inner, at::Tensor const& factor, at::TensorOptions const& like) {
  auto y = at::empty({inner.size(1), factor.size(1)}, like);
  outer_into(y, inner, factor, false);
  return y;
}

/// inner x, [r, size], of inner [r, N] and x [N, size].
at::Tensor gradient_of_factor(at::Tensor const& inner, at::Tensor const& x) {
  if (!have_loops(x, inner.size(0)) || inner.scalar_type() != at::kFloat)
    return at::mm(inner.to(x.scalar_type()), x);
  auto const left = inner.contiguous(), right = x.contiguous();
  auto result = at::empty({left.size(0), right.size(1)}, left.options());
  multiply({.left = left.const_data_ptr<float>(),
            .left_row = left.size(1),
            .left_term = 1,
            .right_type = *stored_type(x.scalar_type()),
            .right = right.const_data_ptr(),
            .right_row = right.size(1),
            .rows = left.size(0),
            .terms = right.size(0),
            .out = result.mutable_data_ptr(),
            .out_row = result.size(1)},
           result.size(1));
  return result;
}

/// s · gᵀ innerᵀ, [out, r], of g [N, out] and inner [r, N].
at::Tensor gradient_of_b(at::Tensor const& inner, at::Tensor const& g, double scale, at::ScalarType type) {
  auto const transposed = gradient_of_factor(inner, g).mul_(scale);
  return transposed.t().to(type, false, false, at::MemoryFormat::Contiguous);
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
    auto const inner = inner_of(dropped(x, dropout.mask, dropout.keep), a);
    outer_into(y, inner.mul(scale), b.t(), true);
    Saved{x, a, b, inner, dropout, scale}.into(ctx);
    ctx->mark_dirty({y});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const [x, a, b, inner, dropout, scale] = Saved::from(ctx);
    auto const& [mask, keep] = dropout;
    auto const of_inner = inner_of(grads[0], b.t()).mul_(scale);
    Tensors result(6);
    if (ctx->needs_input_grad(0)) result[0] = dropped(outer(of_inner, a, x.options()), mask, keep);
    result[1] = grads[0];
    if (ctx->needs_input_grad(2))
      result[2] = gradient_of_factor(of_inner, dropped(x, mask, keep)).to(a.scalar_type());
    if (ctx->needs_input_grad(3)) result[3] = gradient_of_b(inner, grads[0], scale, b.scalar_type());
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
    auto const input = dropped(x, dropout.mask, dropout.keep);
    auto const wide = have_loops(x, a.size(1)) ? at::kFloat : x.scalar_type();
    auto const inner = at::empty({a.size(1), x.size(0)}, x.options().dtype(wide));
    parts.for_each([&](int64_t slot, int64_t begin, int64_t count) {
      auto const own = inner_of(input.narrow(0, begin, count), a[slot]);
      inner.narrow(1, begin, count).copy_(own);
      auto part = y.narrow(0, begin, count);
      outer_into(part, own.mul(scale), b[slot].t(), true);
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
    auto const input = dropped(x, mask, keep);
    Tensors result(7);
    bool const to_input = ctx->needs_input_grad(0);
    if (to_input) result[0] = at::empty(x.sizes(), x.options());
    result[1] = grads[0];
    result[2] = at::zeros_like(a);
    bool const to_b = ctx->needs_input_grad(3);
    if (to_b) result[3] = at::zeros_like(b);
    parts.for_each([&](int64_t slot, int64_t begin, int64_t count) {
      auto const grad = grads[0].narrow(0, begin, count);
      auto const of_inner = inner_of(grad, b[slot].t()).mul_(scale);
      if (to_input) {
        auto own = result[0].narrow(0, begin, count);
        outer_into(own, of_inner, a[slot], false);
      }
      result[2][slot].copy_(gradient_of_factor(of_inner, input.narrow(0, begin, count)));
      if (to_b)
        result[3][slot].copy_(gradient_of_b(inner.narrow(1, begin, count), grad, scale, b.scalar_type()));
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

}  // namespace fsllm
