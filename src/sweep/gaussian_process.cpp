// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "fsllm/sweep/bayes.hpp"

namespace fsllm {
namespace {

/// Matérn 5/2.
double kernel(std::vector<double> const& a, std::vector<double> const& b, double length) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += (a[i] - b[i]) * (a[i] - b[i]);
  double const r = std::sqrt(5 * squares) / length;
  return (1 + r + r * r / 3) * std::exp(-r);
}

/// L with L·Lᵀ = `matrix` (n × n, positive definite), in its lower triangle.
void cholesky(std::vector<double>& matrix, size_t n) {
  for (size_t j = 0; j < n; ++j) {
    for (size_t k = 0; k < j; ++k)
      for (size_t i = j; i < n; ++i) matrix[i * n + j] -= matrix[i * n + k] * matrix[j * n + k];
    double const pivot = std::sqrt(std::max(matrix[j * n + j], 1e-12));
    for (size_t i = j; i < n; ++i) matrix[i * n + j] /= pivot;
    matrix[j * n + j] = pivot;
  }
}

/// L⁻¹·b
std::vector<double> solve_lower(std::vector<double> const& factor, std::vector<double> b) {
  auto const n = b.size();
  for (size_t i = 0; i < n; ++i) {
    for (size_t k = 0; k < i; ++k) b[i] -= factor[i * n + k] * b[k];
    b[i] /= factor[i * n + i];
  }
  return b;
}

/// L⁻ᵀ·b
std::vector<double> solve_upper(std::vector<double> const& factor, std::vector<double> b) {
  auto const n = b.size();
  for (size_t i = n; i-- > 0;) {
    for (size_t k = i + 1; k < n; ++k) b[i] -= factor[k * n + i] * b[k];
    b[i] /= factor[i * n + i];
  }
  return b;
}

double dot(std::vector<double> const& a, std::vector<double> const& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

}  // namespace

GaussianProcess::GaussianProcess(std::vector<std::vector<double>> points, std::vector<double> const& values)
    : points_(std::move(points)) {
  auto const n = static_cast<double>(values.size());
  mean_ = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (auto const value : values) squares += (value - mean_) * (value - mean_);
  if (squares > 0) scale_ = std::sqrt(squares / n);
  for (auto const value : values) scaled_.push_back((value - mean_) / scale_);
  double best = -std::numeric_limits<double>::infinity(), best_length = 1, best_noise = 1e-2;
  for (double const length : {0.1, 0.2, 0.4, 0.8, 1.6, 3.2})
    for (double const noise : {1e-4, 1e-2, 1e-1})
      if (double const likelihood = fit(length, noise); likelihood > best) {
        best = likelihood;
        best_length = length;
        best_noise = noise;
      }
  fit(best_length, best_noise);
}

/// The logarithm of the marginal likelihood, without its constant.
double GaussianProcess::fit(double length, double noise) {
  auto const n = points_.size();
  length_ = length;
  noise_ = noise;
  factor_.assign(n * n, 0.0);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j <= i; ++j)
      factor_[i * n + j] = kernel(points_[i], points_[j], length) + (i == j ? noise : 0.0);
  cholesky(factor_, n);
  weights_ = solve_upper(factor_, solve_lower(factor_, scaled_));
  double logarithms = 0;
  for (size_t i = 0; i < n; ++i) logarithms += std::log(factor_[i * n + i]);
  return -0.5 * dot(scaled_, weights_) - logarithms;
}

GaussianProcess::Belief GaussianProcess::at(std::vector<double> const& point) const {
  std::vector<double> near;
  for (auto const& known : points_) near.push_back(kernel(known, point, length_));
  auto const explained = solve_lower(factor_, near);
  double const variance = std::max(1 - dot(explained, explained), 0.0);
  return {mean_ + scale_ * dot(near, weights_), scale_ * std::sqrt(variance)};
}

double expected_improvement(GaussianProcess::Belief const& belief, double best) {
  if (belief.deviation <= 0) return std::max(best - belief.mean, 0.0);
  double const z = (best - belief.mean) / belief.deviation;
  double const density = std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
  double const share = 0.5 * std::erfc(-z / std::numbers::sqrt2);
  return (best - belief.mean) * share + belief.deviation * density;
}

}  // namespace fsllm
