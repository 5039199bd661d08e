// SPDX-License-Identifier: Apache-2.0
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <vector>

#include "functions.hpp"
#include "stored_type.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;

at::Tensor with_dense_heads(at::Tensor const& x) {
  return x.stride(-1) == 1 ? x : x.contiguous();
}

CausalRows rows_of(CausalRule const& rule, at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                   at::Tensor const& sums) {
  int64_t longest = 0;
  for (size_t row = 0; row + 1 < rule.firsts.size(); ++row)
    longest = std::max(longest, rule.firsts[row + 1] - rule.firsts[row]);
  return {.type = *stored_type(q.scalar_type()),
          .q = q.const_data_ptr(),
          .k = k.const_data_ptr(),
          .v = v.const_data_ptr(),
          .q_token = q.stride(0),
          .q_head = q.stride(1),
          .k_token = k.stride(0),
          .k_head = k.stride(1),
          .v_token = v.stride(0),
          .v_head = v.stride(1),
          .firsts = rule.firsts.data(),
          .past = rule.past,
          .longest = rule.past + longest,
          .window = rule.window,
          .heads = q.size(1),
          .kv_heads = k.size(1),
          .dim = q.size(2),
          .scale = static_cast<float>(rule.scale),
          .slopes = rule.slopes.defined() ? rule.slopes.const_data_ptr<float>() : nullptr,
          .sums = sums.mutable_data_ptr<float>()};
}

void over_heads(void (*kernel)(CausalRows const&, float*, int64_t, int64_t), CausalRows const& rows,
                CausalRule const& rule) {
  auto const pairs = (std::ssize(rule.firsts) - 1) * rows.kv_heads;
  at::parallel_for(0, pairs, 1, [&](int64_t begin, int64_t end) {
    auto const room = at::empty({room_of(rows)}, at::kFloat);
    kernel(rows, room.mutable_data_ptr<float>(), begin, end);
  });
}

struct Mixed {
  at::Tensor out, sums;
};

/// With dense heads.
Mixed mix(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, CausalRule const& rule) {
  Mixed mixed{at::empty({q.size(0), q.size(1) * q.size(2)}, q.options()),
              at::empty({q.size(0), q.size(1)}, q.options().dtype(at::kFloat))};
  auto rows = rows_of(rule, q, k, v, mixed.sums);
  rows.out = mixed.out.mutable_data_ptr();
  over_heads(cpu_kernels()->causal, rows, rule);
  return mixed;
}

struct CausalAttention : torch::autograd::Function<CausalAttention> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& given_q, at::Tensor const& given_k,
                            at::Tensor const& given_v, CausalRule const& rule) {
    auto const q = with_dense_heads(given_q), k = with_dense_heads(given_k), v = with_dense_heads(given_v);
    auto const mixed = mix(q, k, v, rule);
    ctx->save_for_backward({q, k, v, mixed.sums});
    ctx->saved_data["firsts"] = rule.firsts;
    ctx->saved_data["past"] = rule.past;
    ctx->saved_data["window"] = rule.window;
    ctx->saved_data["scale"] = rule.scale;
    if (rule.slopes.defined()) ctx->saved_data["slopes"] = rule.slopes;
    return mixed.out;
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const saved = ctx->get_saved_variables();
    auto const &q = saved[0], &k = saved[1], &v = saved[2];
    CausalRule rule{ctx->saved_data["firsts"].toIntVector(),
                    ctx->saved_data["past"].toInt(),
                    ctx->saved_data["window"].toInt(),
                    ctx->saved_data["scale"].toDouble(),
                    {}};
    if (ctx->saved_data.count("slopes") > 0) rule.slopes = ctx->saved_data["slopes"].toTensor();
    auto const grad = grads[0].contiguous();
    Tensors result{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()),
                   at::empty(v.sizes(), v.options()), at::Tensor()};
    auto rows = rows_of(rule, q, k, v, saved[3]);
    rows.grad = grad.const_data_ptr();
    rows.grad_q = result[0].mutable_data_ptr();
    rows.grad_k = result[1].mutable_data_ptr();
    rows.grad_v = result[2].mutable_data_ptr();
    over_heads(cpu_kernels()->causal_backward, rows, rule);
    return result;
  }
};

}  // namespace

at::Tensor causal_attention(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v,
                            CausalRule const& rule) {
  if (!at::GradMode::is_enabled())
    return mix(with_dense_heads(q), with_dense_heads(k), with_dense_heads(v), rule).out;
  return CausalAttention::apply(q, k, v, rule);
}

}  // namespace fsllm::detail
