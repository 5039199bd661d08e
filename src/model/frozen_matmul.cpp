// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "functions.hpp"

namespace fsllm::detail {
namespace {

using torch::autograd::AutogradContext;
using Tensors = torch::autograd::variable_list;

/// Values that are converted at a time: 16 MiB in fp32, small against a model and large enough for a GEMM.
constexpr int64_t kPanelValues = int64_t{4} << 20;
/// Quantised rows can be had from multiples of this on.
constexpr int64_t kPanelStep = 64;

/// Memory for a panel in fp32 that the thread keeps: freed and asked for again, it would be cut by the small
/// tensors that live until the backward pass, and every panel would take new memory.
at::Tensor panel_memory(int64_t rows, int64_t columns) {
  thread_local at::Tensor memory;
  if (!memory.defined() || memory.numel() < rows * columns) memory = at::empty({rows * columns}, at::kFloat);
  return memory.narrow(0, 0, rows * columns).view({rows, columns});
}

/// A weight [rows, columns] as it is stored, kept alive by the graph.
struct StoredMatrix final : torch::CustomClassHolder {
  at::Tensor weight;
  std::shared_ptr<QuantizedWeight const> quantized;
  bool conv1d = false;  ///< [in, out]

  int64_t rows() const { return quantized ? quantized->shape()[0] : weight.size(0); }
  int64_t columns() const { return quantized ? quantized->shape()[1] : weight.size(1); }
  /// Good until the next one.
  at::Tensor panel(int64_t begin, int64_t count, at::ScalarType type) const {
    bool const on_cpu = quantized ? quantized->device().is_cpu() : weight.is_cpu();
    if (type != at::kFloat || !on_cpu)
      return (quantized ? quantized->rows(begin, count) : weight.narrow(0, begin, count)).to(type);
    auto const values = panel_memory(count, columns());
    if (quantized)
      quantized->rows_into(values, begin);
    else
      values.copy_(weight.narrow(0, begin, count));
    return values;
  }
  /// Half sums would be rounded after every panel: there the whole is one.
  int64_t panel_rows(at::ScalarType type) const {
    bool const wide = type == at::kFloat || type == at::kDouble;
    return wide ? std::max(kPanelStep, kPanelValues / columns() / kPanelStep * kPanelStep) : rows();
  }
};

/// x Sᵀ: every panel gives columns of the result.
at::Tensor times_transposed(at::Tensor const& x, StoredMatrix const& matrix) {
  auto const type = x.scalar_type();
  int64_t const rows = matrix.rows(), step = matrix.panel_rows(type);
  if (x.size(0) == 0) return at::empty({0, rows}, x.options());
  if (step >= rows) return at::mm(x, matrix.panel(0, rows, type).t());
  auto y = at::empty({x.size(0), rows}, x.options());
  for (int64_t begin = 0; begin < rows; begin += step) {
    int64_t const count = std::min(step, rows - begin);
    auto part = y.narrow(1, begin, count);
    at::mm_out(part, x, matrix.panel(begin, count, type).t());
  }
  return y;
}

/// x S: every panel adds to the result.
at::Tensor times(at::Tensor const& x, StoredMatrix const& matrix) {
  auto const type = x.scalar_type();
  int64_t const rows = matrix.rows(), step = matrix.panel_rows(type);
  if (x.size(0) == 0) return at::empty({0, matrix.columns()}, x.options());
  if (step >= rows) return at::mm(x, matrix.panel(0, rows, type));
  auto y = at::zeros({x.size(0), matrix.columns()}, x.options());
  for (int64_t begin = 0; begin < rows; begin += step) {
    int64_t const count = std::min(step, rows - begin);
    y.addmm_(x.narrow(1, begin, count), matrix.panel(begin, count, type));
  }
  return y;
}

struct FrozenMatmul : torch::autograd::Function<FrozenMatmul> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor const& x,
                            c10::intrusive_ptr<StoredMatrix> const& matrix) {
    ctx->saved_data["matrix"] = c10::IValue::make_capsule(matrix);
    return matrix->conv1d ? times(x, *matrix) : times_transposed(x, *matrix);
  }
  static Tensors backward(AutogradContext* ctx, Tensors const& grads) {
    auto const capsule = ctx->saved_data["matrix"].toCapsule();
    auto const& matrix = static_cast<StoredMatrix const&>(*capsule);
    return {matrix.conv1d ? times_transposed(grads[0], matrix) : times(grads[0], matrix), at::Tensor()};
  }
};

}  // namespace

at::Tensor frozen_matmul(at::Tensor const& x, Linear const& linear) {
  auto const matrix = c10::make_intrusive<StoredMatrix>();
  matrix->weight = linear.weight;
  matrix->quantized = linear.quantized;
  matrix->conv1d = linear.conv1d;
  return FrozenMatmul::apply(x, matrix);
}

}  // namespace fsllm::detail
