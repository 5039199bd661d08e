// SPDX-License-Identifier: Apache-2.0
#include "skinny_matmul.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "cpu_kernels.hpp"

namespace fsllm::detail {
namespace {

/// Rows from which on a matrix product that packs the weight is faster.
constexpr int64_t kMostRows = 16;
/// Multiplications that are worth a thread.
constexpr int64_t kGrain = int64_t{1} << 18;

std::optional<StoredType> type_of_storage(at::Tensor const& weight) {
  switch (weight.scalar_type()) {
    case at::kFloat:
      return StoredType::fp32;
    case at::kBFloat16:
      return StoredType::bf16;
    case at::kHalf:
      return StoredType::fp16;
    case at::kChar:
      return StoredType::int8;
    default:
      return {};
  }
}

}  // namespace

std::optional<at::Tensor> skinny_matmul(at::Tensor const& x, Linear const& linear) {
  bool const fits = cpu_kernels() != nullptr && x.is_cpu() && x.size(0) > 0 && x.size(0) <= kMostRows &&
                    x.scalar_type() != at::kDouble && !at::GradMode::is_enabled() && !linear.conv1d;
  if (!fits || (linear.quantized && linear.quantized->kind() != Quantization::int8)) return {};
  auto const [weight, scales] =
      linear.quantized ? linear.quantized->int8_rows() : std::pair(linear.weight, at::Tensor());
  auto const type = type_of_storage(weight);
  if (!type || !weight.is_contiguous()) return {};
  auto const values = x.to(at::kFloat).contiguous();
  int64_t const columns = weight.size(0), terms = weight.size(1);
  auto y = at::empty({x.size(0), columns}, at::kFloat);
  SkinnyProduct const product{.type = *type,
                              .weight = weight.const_data_ptr(),
                              .scales = scales.defined() ? scales.const_data_ptr<float>() : nullptr,
                              .x = values.const_data_ptr<float>(),
                              .rows = x.size(0),
                              .terms = terms,
                              .y = y.mutable_data_ptr<float>(),
                              .stride = columns};
  at::parallel_for(0, columns, std::max<int64_t>(1, kGrain / terms),
                   [&](int64_t begin, int64_t end) { cpu_kernels()->skinny_product(product, begin, end); });
  return y.to(x.scalar_type());
}

}  // namespace fsllm::detail
