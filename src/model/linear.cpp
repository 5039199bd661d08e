// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/linear.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include "fsllm/model/pass.hpp"
#include "functions.hpp"
#include "recompute.hpp"
#include "skinny_matmul.hpp"

namespace fsllm {
namespace {

/// W and b in x's type (no copy where they have it); autograd follows the conversion of trainable ones.
at::Tensor plain(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& bias) {
  auto const matrix = weight.to(x.scalar_type()).t();
  return bias.defined() ? at::addmm(bias.to(x.scalar_type()), x, matrix) : at::mm(x, matrix);
}

at::Tensor product(at::Tensor const& x, Linear const& linear, Pass const& pass) {
  auto const &weight = linear.weight, &bias = linear.bias;
  if (pass.has_cache())  // elsewhere a pass without gradients has the bits of one with them
    if (auto const y = detail::skinny_matmul(x, linear))
      return bias.defined() ? y->add_(bias.to(x.scalar_type())) : *y;
  if (!linear.quantized && (weight.requires_grad() || weight.scalar_type() == x.scalar_type()))
    return plain(x, linear.matrix(), bias);
  auto const y = detail::frozen_matmul(x, linear);
  return bias.defined() ? y.add_(bias.to(x.scalar_type())) : y;
}

}  // namespace

void Linear::set_weight(at::Tensor const& values) {
  weight = values.to(quantized ? at::kFloat : weight.scalar_type()).contiguous();
  quantized.reset();
}

at::Tensor Linear::forward(at::Tensor const& given, Pass const& pass) const {
  if (!adapter) return product(given, *this, pass);
  auto const x = adapter->input(given, pass);
  if (detail::product_is_wanted(*this)) return adapter->apply(x, product(x, *this, pass), *this, pass);
  auto const none = product(x.narrow(0, 0, 0), *this, pass);  // saves what the product would
  return adapter->apply(x, at::empty({x.size(0), none.size(1)}, none.options()), *this, pass);
}

}  // namespace fsllm
