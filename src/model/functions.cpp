// SPDX-License-Identifier: Apache-2.0
#include "functions.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/div.h>
#include <ATen/ops/empty.h>
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

#include <algorithm>
#include <utility>

#include "stored_type.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

at::ScalarType norm_type(at::Tensor const& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Values worth a thread.
constexpr int64_t kGrain = int64_t{1} << 15;

/// Rows [0, count) of `size` values each, shared by the threads.
template <class Rows>
void over_rows(void (*kernel)(Rows const&, int64_t, int64_t), Rows const& rows, int64_t count, int64_t size) {
  at::parallel_for(0, count, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)),
                   [&](int64_t begin, int64_t end) { kernel(rows, begin, end); });
}

/// `inverse`: room for what the backward pass needs of each row, or undefined.
at::Tensor rms_rows(at::Tensor const& given, at::Tensor const& weight, double eps,
                    at::Tensor const& inverse) {
  auto const x = given.contiguous(), w = as_floats(weight);
  int64_t const size = x.size(-1), count = size == 0 ? 0 : x.numel() / size;
  auto y = at::empty(x.sizes(), x.options());
  RmsRows const rows{.type = *stored_type(x.scalar_type()),
                     .x = x.const_data_ptr(),
                     .weight = w.const_data_ptr<float>(),
                     .size = size,
                     .eps = static_cast<float>(eps),
                     .inverse = inverse.defined() ? inverse.mutable_data_ptr<float>() : nullptr,
                     .y = y.mutable_data_ptr()};
  over_rows(cpu_kernels()->rms_norm, rows, count, size);
  return y;
}

at::Tensor rms_rows_backward(at::Tensor const& given, at::Tensor const& weight, at::Tensor const& inverse,
                             at::Tensor const& given_grad) {
  auto const x = given.contiguous(), w = as_floats(weight), grad = given_grad.contiguous();
  int64_t const size = x.size(-1), count = size == 0 ? 0 : x.numel() / size;
  auto y = at::empty(x.sizes(), x.options());
  RmsRows const rows{.type = *stored_type(x.scalar_type()),
                     .x = x.const_data_ptr(),
                     .grad = grad.const_data_ptr(),
                     .weight = w.const_data_ptr<float>(),
                     .size = size,
                     .inverse = const_cast<float*>(inverse.const_data_ptr<float>()),
                     .y = y.mutable_data_ptr()};
  over_rows(cpu_kernels()->rms_norm_backward, rows, count, size);
  return y;
}

struct RmsNorm : Function<RmsNorm> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x, at::Tensor const& weight, double eps) {
    if (have_kernels(x)) {
      auto sizes = x.sizes().vec();
      sizes.back() = 1;
      auto const inverse = at::empty(sizes, x.options().dtype(at::kFloat));
      ctx->save_for_backward({x, weight, inverse});
      return rms_rows(x, weight, eps, inverse);
    }
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
    if (have_kernels(saved[0], grads[0]) && !ctx->needs_input_grad(1))
      return {rms_rows_backward(saved[0], saved[1], saved[2], grads[0]), at::Tensor(), at::Tensor()};
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

at::Tensor rotated_rows(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, double sign,
                        bool neighbours) {
  auto const all_cos = cos.contiguous(), all_sin = sin.contiguous();
  auto y = at::empty(x.sizes(), x.options());
  Rotation const rotation{.type = *stored_type(x.scalar_type()),
                          .x = x.const_data_ptr(),
                          .cos = all_cos.const_data_ptr(),
                          .sin = all_sin.const_data_ptr(),
                          .token_stride = x.stride(0),
                          .head_stride = x.stride(1),
                          .heads = x.size(1),
                          .dim = x.size(2),
                          .pairs = cos.size(-1),
                          .sign = static_cast<float>(sign),
                          .neighbours = neighbours,
                          .y = y.mutable_data_ptr()};
  over_rows(cpu_kernels()->rotate, rotation, x.size(0), x.size(1) * x.size(2));
  return y;
}

/// (x1, x2) → (x1·cos − sign·x2·sin, x2·cos + sign·x1·sin): the turn by +angle or −angle.
at::Tensor turn(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, double sign,
                bool neighbours) {
  if (have_kernels(x, cos, sin) && x.stride(-1) == 1) return rotated_rows(x, cos, sin, sign, neighbours);
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

/// gate, up and y [N, M].
GatedRows gated_rows(at::Tensor const& gate, at::Tensor const& up, at::Tensor const& y) {
  return {.type = *stored_type(gate.scalar_type()),
          .gate = gate.const_data_ptr(),
          .up = up.const_data_ptr(),
          .gate_stride = gate.stride(0),
          .up_stride = up.stride(0),
          .size = gate.size(1),
          .y = y.mutable_data_ptr()};
}

bool gates_by_rows(at::Tensor const& gate, at::Tensor const& up) {
  return have_kernels(gate, up) && gate.dim() == 2 && gate.stride(1) == 1 && up.stride(1) == 1;
}

at::Tensor swiglu_rows(at::Tensor const& gate, at::Tensor const& up) {
  auto y = at::empty(gate.sizes(), gate.options());
  over_rows(cpu_kernels()->swiglu, gated_rows(gate, up, y), gate.size(0), gate.size(1));
  return y;
}

Tensors swiglu_rows_backward(at::Tensor const& gate, at::Tensor const& up, at::Tensor const& given_grad) {
  auto const grad = given_grad.contiguous();
  auto grad_gate = at::empty(gate.sizes(), gate.options()), grad_up = at::empty(up.sizes(), up.options());
  auto rows = gated_rows(gate, up, grad_gate);
  rows.grad = grad.const_data_ptr();
  rows.grad_up = grad_up.mutable_data_ptr();
  over_rows(cpu_kernels()->swiglu_backward, rows, gate.size(0), gate.size(1));
  return {grad_gate, grad_up};
}

struct Swiglu : Function<Swiglu> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& gate, at::Tensor const& up) {
    ctx->save_for_backward({gate, up});
    if (gates_by_rows(gate, up)) return swiglu_rows(gate, up);
    return at::silu(gate).mul_(up);
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    if (gates_by_rows(saved[0], saved[1]) && have_kernels(grads[0]))
      return swiglu_rows_backward(saved[0], saved[1], grads[0]);
    auto grad_up = at::silu(saved[0]).mul_(grads[0]);
    return {at::silu_backward(at::mul(grads[0], saved[1]), saved[0]), grad_up};
  }
};

}  // namespace

at::Tensor rms_norm(at::Tensor const& x, at::Tensor const& weight, double eps) {
  if (!at::GradMode::is_enabled() && have_kernels(x)) return rms_rows(x, weight, eps, {});
  return RmsNorm::apply(x, weight, eps);
}

at::Tensor rotate(at::Tensor const& x, at::Tensor const& cos, at::Tensor const& sin, bool neighbours) {
  if (!at::GradMode::is_enabled()) return turn(x, cos, sin, 1, neighbours);
  return Rotate::apply(x, cos, sin, neighbours);
}

at::Tensor soft_cap(at::Tensor const& x, double cap) {
  return at::tanh(at::div(x, cap)).mul(cap);
}

at::Tensor swiglu(at::Tensor const& gate, at::Tensor const& up) {
  if (!at::GradMode::is_enabled() && gates_by_rows(gate, up)) return swiglu_rows(gate, up);
  return Swiglu::apply(gate, up);
}

}  // namespace fsllm::detail
