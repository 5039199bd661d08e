// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/linear.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "functions.hpp"

namespace fsllm {
namespace {

/// W and b in x's type (no copy where they have it); autograd follows the conversion of trainable ones.
at::Tensor plain(at::Tensor const& x, at::Tensor const& weight, at::Tensor const& bias) {
  auto const matrix = weight.to(x.scalar_type()).t();
  return bias.defined() ? at::addmm(bias.to(x.scalar_type()), x, matrix) : at::mm(x, matrix);
}

}  // namespace

void Linear::set_weight(at::Tensor const& values) {
  weight = values.to(quantized ? at::kFloat : weight.scalar_type()).contiguous();
  quantized.reset();
}

at::Tensor Linear::forward(at::Tensor const& given, Pass const& pass) const {
  auto const x = adapter ? adapter->input(given, pass) : given;
  at::Tensor y;
  if (!quantized && (weight.requires_grad() || weight.scalar_type() == x.scalar_type())) {
    y = plain(x, matrix(), bias);
  } else {
    y = detail::frozen_matmul(x, *this);
    if (bias.defined()) y = y.add_(bias.to(x.scalar_type()));
  }
  return adapter ? adapter->apply(x, y, *this, pass) : y;
}

}  // namespace fsllm
