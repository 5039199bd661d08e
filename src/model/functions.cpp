// SPDX-License-Identifier: Apache-2.0
#include "functions.hpp"

#include <ATen/ops/div.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <torch/csrc/autograd/custom_function.h>

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

at::ScalarType norm_type(at::Tensor const& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor const& weight, double eps) {
    auto const type = norm_type(x);
    auto const wide = x.to(type);
    auto const inverse = at::rsqrt(at::mean(at::square(wide), -1, true).add_(eps));  // [N, 1]
    ctx->save_for_backward({x, weight, inverse});
    return at::mul(wide, inverse).mul_(weight.to(type)).to(x.scalar_type());
  }
  /// With n = x/r: dx = (g·w − n·mean(g·w·n)) / r and dw = Σ g·n.
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    auto const type = saved[2].scalar_type();
    auto const grad = grads[0].to(type);
    auto const normed = at::mul(saved[0].to(type), saved[2]);
    at::Tensor grad_weight;
    if (ctx->needs_input_grad(1)) grad_weight = at::mul(grad, normed).sum(0).to(saved[1].scalar_type());
    at::Tensor grad_x;
    if (ctx->needs_input_grad(0)) {
      auto scaled = at::mul(grad, saved[1].to(type));
      auto const along = at::mean(at::mul(scaled, normed), -1, true);
      grad_x = scaled.addcmul_(normed, along, -1).mul_(saved[2]).to(saved[0].scalar_type());
    }
    return {grad_x, grad_weight, at::Tensor()};
  }
};

/// The first or second members of the pairs that are turned.
at::Tensor members(at::Tensor const& x, int64_t pairs, bool neighbours, int64_t which) {
  return neighbours ? x.slice(-1, which, 2 * pairs, 2) : x.narrow(-1, which * pairs, pairs);
}

/// (x1, x2) → (x1·cos − sign·x2·sin, x2·cos + sign·x1·sin): the turn by +angle or −angle.
at::Tensor turn(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, double sign,
                bool neighbours) {
  auto const pairs = cos.size(-1), rest = x.size(-1) - 2 * pairs;
  auto const x1 = members(x, pairs, neighbours, 0), x2 = members(x, pairs, neighbours, 1);
  auto out = at::empty_like(x, at::MemoryFormat::Contiguous);
  auto out1 = members(out, pairs, neighbours, 0), out2 = members(out, pairs, neighbours, 1);
  at::mul_out(out1, x1, cos);
  out1.addcmul_(x2, sin, -sign);
  at::mul_out(out2, x2, cos);
  out2.addcmul_(x1, sin, sign);
  if (rest > 0) out.narrow(-1, 2 * pairs, rest).copy_(x.narrow(-1, 2 * pairs, rest));
  return out;
}

struct Rotate : Function<Rotate> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor const& cos,
                            at::Tensor const& sin, bool neighbours) {
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["neighbours"] = neighbours;
    return turn(x, cos, sin, 1, neighbours);
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    bool const neighbours = ctx->saved_data["neighbours"].toBool();
    return {turn(grads[0], saved[0], saved[1], -1, neighbours), at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

struct Swiglu : Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& gate, at::Tensor const& up) {
    ctx->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    auto grad_up = at::silu(saved[0]).mul_(grads[0]);
    return {at::silu_backward(at::mul(grads[0], saved[1]), saved[0]), grad_up};
  }
};

}  // namespace

at::Tensor rms_norm(at::Tensor const& x, at::Tensor const& weight, double eps) {
  return RmsNorm::apply(x, weight, eps);
}

at::Tensor rotate(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, bool neighbours) {
  return Rotate::apply(x, cos, sin, neighbours);
}

at::Tensor soft_cap(at::Tensor const& x, double cap) {
  return at::tanh(at::div(x, cap)).mul(cap);
}

at::Tensor swiglu(at::Tensor const& gate, at::Tensor const& up) {
  return Swiglu::apply(gate, up);
}

}  // namespace fsllm::detail
