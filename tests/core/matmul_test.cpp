// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/matmul.hpp"

#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <utility>

namespace fsllm {
namespace {

/// Rows, terms, columns: products that change libraries, and some that do not.
constexpr int64_t kShapes[][3] = {{64, 576, 192}, {1, 576, 4096},  {64, 2048, 8}, {3, 70, 5},
                                  {129, 300, 77}, {512, 64, 1000}, {2, 4096, 200}};
/// The second matrix has more values than are converted at a time.
constexpr int64_t kLargeShapes[][3] = {{3, 600, 9000}, {3, 9000, 600}};

class Matmul : public testing::Test {
 protected:
  static void SetUpTestSuite() { use_matmul_kernels(); }
};

/// The largest distance from the product in float64, by the size of what is added up.
double error_of(at::Tensor const& product, at::Tensor const& a, at::Tensor const& b) {
  auto const exact = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  auto const size = at::mm(a.to(at::kDouble).abs(), b.to(at::kDouble).abs());
  return product.to(at::kDouble).sub(exact).abs().div(size).max().item<double>();
}

TEST_F(Matmul, ProductsInEveryLayoutAreThoseOfFloat64) {
  for (auto const& [m, k, n] : kShapes) {
    at::Tensor const a[] = {at::randn({m, k}), at::randn({k, m}).t(), at::randn({m, k + 3}).narrow(1, 2, k)};
    at::Tensor const b[] = {at::randn({k, n}), at::randn({n, k}).t(), at::randn({k, n + 5}).narrow(1, 1, n),
                            at::randn({k, 2 * n}).view({k, n, 2}).select(2, 1)};
    for (auto const& left : a)
      for (auto const& right : b) {
        EXPECT_LT(error_of(at::mm(left, right), left, right), 1e-6);
        auto out = at::empty({m, 3 * n}).narrow(1, n, n);
        EXPECT_LT(error_of(at::mm_out(out, left, right), left, right), 1e-6);
        auto const bias = at::randn({n}), sum = at::randn({m, n});
        EXPECT_LT(error_of(at::addmm(bias, left, right).sub(bias), left, right), 1e-5);
        EXPECT_LT(error_of(sum.clone().addmm_(left, right, 1, 0.5).sub(sum).mul(2), left, right), 1e-5);
        EXPECT_LT(error_of(at::addmm(bias, left, right, 2, 0.5).sub(bias, 2).mul(2), left, right), 1e-5);
      }
  }
}

/// Memory of this process, MiB.
double resident() {
  int64_t all = 0, pages = 0;
  std::ifstream("/proc/self/statm") >> all >> pages;
  return static_cast<double>(pages) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 1048576;
}

/// What is compiled for a shape does not stay for good: steps of training have ever other ones.
TEST_F(Matmul, ManyShapesTakeLittleMemory) {
  auto const multiply = [](int64_t first, int64_t last) {
    for (int64_t m = first; m < last; ++m)
      for (auto const& [k, n] : {std::pair{576, 1536}, {1536, 576}, {576, 192}})
        at::mm(at::empty({m, k}, at::kBFloat16), at::empty({n, k}, at::kBFloat16).t());
  };
  multiply(40, 70);
  double const before = resident();
  multiply(70, 270);
  EXPECT_LT(resident() - before, 40);
}

/// Each rounded once (fp16 has 11 bits, bf16 8), whatever the number of terms.
TEST_F(Matmul, HalvesAreRoundedOnce) {
  for (auto const& [type, bound] : {std::pair{at::kHalf, 0x1p-10}, std::pair{at::kBFloat16, 0x1p-7}}) {
    auto const check = [&, type = type, bound = bound](int64_t m, int64_t k, int64_t n) {
      auto const a = at::randn({m, k}).to(type), b = at::randn({n, k}).to(type).t();
      auto const c = at::randn({n}).to(type), product = at::mm(a, b);
      EXPECT_EQ(product.scalar_type(), type);
      EXPECT_LT(error_of(product, a, b), bound);
      EXPECT_LT(error_of(at::addmm(c, a, b).to(at::kDouble).sub(c), a, b), 2 * bound);
      EXPECT_LT(error_of(product.clone().addmm_(a, b).to(at::kDouble).div(2), a, b), 2 * bound);
    };
    for (auto const& [m, k, n] : kShapes) check(m, k, n);
    for (auto const& [m, k, n] : kLargeShapes) check(m, k, n);
  }
}

TEST_F(Matmul, GradientsAreProductsToo) {
  auto const a = at::randn({64, 576}).set_requires_grad(true);
  auto const b = at::randn({576, 192}).set_requires_grad(true), g = at::randn({64, 192});
  at::mm(a, b).backward(g);
  EXPECT_LT(error_of(a.grad(), g, b.detach().t()), 1e-6);
  EXPECT_LT(error_of(b.grad(), a.detach().t(), g), 1e-6);
}

TEST_F(Matmul, NotANumberStaysOne) {
  auto const a = at::randn({64, 576}), b = at::zeros({576, 192});
  a[3][5] = std::numeric_limits<float>::quiet_NaN();
  auto const product = at::mm(a, b);
  EXPECT_TRUE(product[3].isnan().all().item<bool>());
  EXPECT_FALSE(product[4].isnan().any().item<bool>());
}

/// Weights lie where a file has them: the same product must not depend on where.
TEST_F(Matmul, BitsDoNotDependOnAlignment) {
  if (!matmul_kernels().starts_with("fp32 by oneDNN"))
    GTEST_SKIP() << "MKL takes MKL_CBWR from the start of a program";
  for (auto const& [m, k, n] : kShapes) {
    if (m == 1 || m * k * n < int64_t{1} << 20) continue;  // MKL's
    auto const a = at::randn({m, k}), b = at::randn({n, k});
    auto const first = at::mm(a, b.t());
    for (int64_t const offset : {1, 2, 3, 5, 8, 13, 16}) {
      auto const moved = [&](at::Tensor const& matrix) {
        return at::empty({matrix.numel() + offset})
            .narrow(0, offset, matrix.numel())
            .view(matrix.sizes())
            .copy_(matrix);
      };
      EXPECT_TRUE(at::mm(moved(a), moved(b).t()).equal(first)) << m << ' ' << k << ' ' << n << " +" << offset;
    }
  }
}

TEST_F(Matmul, WrongShapesAreRefusedAsBefore) {
  EXPECT_THROW(at::mm(at::randn({64, 576}), at::randn({577, 192})), std::exception);
  EXPECT_THROW(at::addmm(at::randn({191}), at::randn({64, 576}), at::randn({576, 192})), std::exception);
}

}  // namespace
}  // namespace fsllm
