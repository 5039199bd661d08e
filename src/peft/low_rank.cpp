// SPDX-License-Identifier: Apache-2.0
#include "fsllm/peft/low_rank.hpp"

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/where.h>

#include <algorithm>

namespace fsllm {
namespace {

constexpr int64_t kDenseLimit = 1024, kMoreColumns = 16;
constexpr int kIterations = 4;

Svd with_fixed_signs(at::Tensor const& u, at::Tensor const& s, at::Tensor const& vt) {
  auto const largest = vt.gather(1, vt.abs().argmax(1, /*keepdim=*/true));
  auto const sign = at::where(largest.lt(0), -1.0, 1.0);
  return {u.mul(sign.t()), s, vt.mul(sign)};
}

Svd dense_svd(at::Tensor const& matrix) {
  auto const [u, s, vt] = at::linalg_svd(matrix, /*full_matrices=*/false);
  return with_fixed_signs(u, s, vt);
}

at::Tensor orthonormal(at::Tensor const& columns) {
  return std::get<0>(at::linalg_qr(columns));
}

Svd first(Svd const& svd, int64_t rank) {
  auto const n = std::min(rank, svd.s.size(0));
  return {svd.u.narrow(1, 0, n), svd.s.narrow(0, 0, n), svd.vt.narrow(0, 0, n)};
}

Factors padded(at::Tensor const& b, at::Tensor const& a, int64_t rank) {
  auto const missing = rank - b.size(1);
  return {at::constant_pad_nd(b, {0, missing}), at::constant_pad_nd(a, {0, 0, 0, missing})};
}

}  // namespace

Svd svd_of_product(at::Tensor const& left, at::Tensor const& right) {
  auto const [ql, rl] = at::linalg_qr(left.to(at::kDouble));
  auto const [qr, rr] = at::linalg_qr(right.to(at::kDouble).t());
  auto const [u, s, vt] = at::linalg_svd(rl.mm(rr.t()), /*full_matrices=*/false);
  return with_fixed_signs(ql.mm(u), s, vt.mm(qr.t()));
}

Svd largest_of(at::Tensor const& matrix, int64_t rank, Philox random) {
  auto const m = matrix.to(at::kDouble);
  auto const width = std::min(m.size(0), m.size(1)), columns = rank + kMoreColumns;
  if (width <= std::max(kDenseLimit, columns)) return first(dense_svd(m), rank);
  auto q = orthonormal(m.mm(normal_matrix(m.size(1), columns, random)));
  for (int i = 0; i < kIterations; ++i) q = orthonormal(m.mm(orthonormal(m.t().mm(q))));
  auto const [u, s, vt] = dense_svd(q.t().mm(m));
  return first({q.mm(u), s, vt}, rank);
}

at::Tensor normal_matrix(int64_t rows, int64_t columns, Philox random) {
  auto const matrix = at::empty({rows, columns}, at::kDouble);
  auto* const values = matrix.mutable_data_ptr<double>();
  for (int64_t i = 0; i < matrix.numel(); ++i) values[i] = random.normal();
  return matrix;
}

Factors orthonormal_factors(Svd const& svd, int64_t rank, double s) {
  auto const [u, sigma, vt] = first(svd, rank);
  return padded(u.mul(sigma.div(s)), vt, rank);
}

Factors balanced_factors(Svd const& svd, int64_t rank, double s) {
  auto const [u, sigma, vt] = first(svd, rank);
  auto const root = sigma.div(s).sqrt();
  return padded(u.mul(root), vt.mul(root.unsqueeze(1)), rank);
}

}  // namespace fsllm
