// SPDX-License-Identifier: Apache-2.0
#include "skinny_matmul.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "stored_type.hpp"

namespace fsllm::detail {
namespace {

/// Rows from which on a matrix product that packs the weight is faster.
constexpr int64_t kMostRows = 16;
/// Multiplications that are worth a thread.
constexpr int64_t kGrain = int64_t{1} << 18;

/// The weight of a product; none where no loop reads it.
std::optional<SkinnyProduct> product_by(Linear const& linear) {
  if (linear.conv1d) return {};
  if (linear.quantized) {
    if (linear.quantized->kind() != Quantization::int8) return {};
    auto const [codes, scales] = linear.quantized->int8_rows();
    return SkinnyProduct{.type = StoredType::int8, .weight = codes, .scales = scales};
  }
  auto const type = stored_type(linear.weight.scalar_type());
  if (!type || !linear.weight.is_contiguous()) return {};
  return SkinnyProduct{.type = *type, .weight = linear.weight.const_data_ptr()};
}

}  // namespace

std::optional<at::Tensor> skinny_matmul(at::Tensor const& x, Linear const& linear) {
  bool const fits = cpu_kernels() != nullptr && x.is_cpu() && x.size(0) > 0 && x.size(0) <= kMostRows &&
                    x.scalar_type() != at::kDouble && !at::GradMode::is_enabled();
  if (!fits) return {};
  auto product = product_by(linear);
  if (!product) return {};
  bool const as_it_is = x.scalar_type() == at::kFloat && x.is_contiguous();
  auto const values = as_it_is ? x : x.to(at::kFloat).contiguous();
  int64_t const columns = linear.out_features();
  auto y = at::empty({x.size(0), columns}, at::kFloat);
  product->x = values.const_data_ptr<float>();
  product->rows = x.size(0);
  product->terms = linear.in_features();
  product->y = y.mutable_data_ptr<float>();
  product->stride = columns;
  at::parallel_for(0, columns, std::max<int64_t>(1, kGrain / product->terms),
                   [&](int64_t begin, int64_t end) { cpu_kernels()->skinny_product(*product, begin, end); });
  return x.scalar_type() == at::kFloat ? y : y.to(x.scalar_type());
}

}  // namespace fsllm::detail
