// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <torch/csrc/autograd/custom_function.h>

#include "lora.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

at::Tensor dropped(at::Tensor const& x, at::Tensor const& mask, double keep) {
  return mask.defined() ? at::mul(x, mask).div_(keep) : x;
}

/// Not a tensor argument: custom functions do not take undefined tensors.
struct Dropout {
  at::Tensor mask;
  double keep;
};

struct AddLowRank : Function<AddLowRank> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor y, at::Tensor const& a,
                            at::Tensor const& b, Dropout const& dropout, double scale) {
    auto const type = x.scalar_type();
    auto const inner = at::mm(dropped(x, dropout.mask, dropout.keep), a.to(type).t());  // [N, r]
    y.addmm_(inner, b.to(type).t(), 1, scale);
    ctx->save_for_backward({x, a, b, inner, dropout.mask});
    ctx->saved_data["keep"] = dropout.keep;
    ctx->saved_data["scale"] = scale;
    ctx->mark_dirty({y});
    return y;
  }

  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    auto const &x = saved[0], &a = saved[1], &b = saved[2], &inner = saved[3], &mask = saved[4];
    double const keep = ctx->saved_data["keep"].toDouble(), scale = ctx->saved_data["scale"].toDouble();
    auto const type = x.scalar_type();
    auto const scaled = at::mm(grads[0], b.to(type)).mul_(scale);  // [N, r], gradient of x Aᵀ
    Tensors result(6);
    if (ctx->needs_input_grad(0)) result[0] = dropped(at::mm(scaled, a.to(type)), mask, keep);
    result[1] = grads[0];
    if (ctx->needs_input_grad(2)) result[2] = at::mm(scaled.t(), dropped(x, mask, keep)).to(a.scalar_type());
    if (ctx->needs_input_grad(3)) result[3] = at::mm(grads[0].t(), inner).mul_(scale).to(b.scalar_type());
    return result;
  }
};

}  // namespace

at::Tensor add_low_rank(at::Tensor const& x, at::Tensor const& y, at::Tensor const& a, at::Tensor const& b,
                        at::Tensor const& keep_mask, double keep, double scale) {
  return AddLowRank::apply(x, y, a, b, Dropout{keep_mask, keep}, scale);
}

}  // namespace fsllm::detail
