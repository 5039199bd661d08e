// SPDX-License-Identifier: Apache-2.0
// LoRA's update and its gradients beside the same in float64.
#include "fsllm/model/low_rank_update.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <string>
#include <vector>

#include "cpu_kernels.hpp"

namespace fsllm {
namespace {

using Tensors = std::vector<at::Tensor>;

struct Case {
  at::Tensor x, y, a, b, mask;  ///< x and y in the type of the pass
  std::vector<PassSegment> segments;
  double scale = 1.5;
};

/// Result, and gradients of x, A and B.
Tensors with_gradients(Case const& c, at::ScalarType type, at::ScalarType of_factors) {
  auto const leaf = [](at::Tensor const& from, at::ScalarType to) {
    return from.to(to).detach().set_requires_grad(true);
  };
  auto const x = leaf(c.x, type), a = leaf(c.a, of_factors), b = leaf(c.b, of_factors);
  auto const y = c.y.to(type).clone();
  auto const result = c.segments.empty() ? add_low_rank(x, y, a, b, c.mask, 0.5, c.scale)
                                         : add_low_rank(x, y, a, b, c.segments, c.mask, 0.5, c.scale);
  auto const grad = at::linspace(-1, 1, y.numel(), at::kDouble).view(y.sizes()).to(at::kBFloat16);
  auto const grads = torch::autograd::grad({result}, {x, a, b}, {grad.to(type)});
  return {result.detach(), grads[0], grads[1], grads[2]};
}

void expect_as_in_double(Case c, std::string const& what) {
  for (auto const& [type, tolerance] : std::vector<std::pair<at::ScalarType, double>>{
           {at::kFloat, 4e-6}, {at::kBFloat16, 1.0 / 256}, {at::kHalf, 1.0 / 2048}}) {
    c.x = c.x.to(type), c.y = c.y.to(type);
    auto const expected = with_gradients(c, at::kDouble, at::kDouble);
    auto const got = with_gradients(c, type, at::kFloat);
    // LibTorch's products round x Aᵀ and the factors too, and so each term of a sum.
    auto const rank = c.a.size(-2);
    bool const own_loops = detail::cpu_kernels() != nullptr && rank <= 32;
    double const rounded = 4 * std::sqrt(static_cast<double>(rank)) * tolerance;
    for (size_t i = 0; i < got.size(); ++i) {
      bool const is_factor = i >= 2;
      EXPECT_EQ(got[i].scalar_type(), is_factor ? at::kFloat : type);
      double const size = expected[i].abs().max().item<double>();
      double const bound = own_loops ? (is_factor ? 4e-6 : tolerance) : rounded;
      EXPECT_LT((got[i].to(at::kDouble) - expected[i]).abs().max().item<double>(), bound * (1 + size))
          << what << ", tensor " << i << ", " << at::toString(type);
    }
  }
}

Case make(int64_t tokens, int64_t in, int64_t out, int64_t rank, int64_t clients = 0) {
  Case c;
  c.x = at::randn({tokens, in}), c.y = at::randn({tokens, out});
  std::vector<int64_t> of_a{rank, in}, of_b{out, rank};
  if (clients > 0) of_a.insert(of_a.begin(), clients), of_b.insert(of_b.begin(), clients);
  c.a = at::randn(of_a) / std::sqrt(static_cast<double>(in)), c.b = at::randn(of_b);
  return c;
}

TEST(LowRankUpdate, IsItsDefinitionAtAnySize) {
  for (int64_t const tokens : {1, 6, 85})
    for (auto const& [in, out] : std::vector<std::pair<int64_t, int64_t>>{{64, 192}, {7, 100}, {576, 1}})
      for (int64_t const rank : {1, 5, 8, 32, 40})
        expect_as_in_double(make(tokens, in, out, rank),
                            std::to_string(tokens) + " tokens, " + std::to_string(in) + " to " +
                                std::to_string(out) + ", rank " + std::to_string(rank));
}

TEST(LowRankUpdate, DropsInputs) {
  auto c = make(33, 100, 64, 8);
  c.mask = at::rand({33, 100}).gt(0.5);
  expect_as_in_double(c, "dropout");
}

TEST(LowRankUpdate, SegmentsHaveTheirOwnAdapter) {
  auto c = make(12, 40, 72, 4, 3);
  c.segments = {{.rows = 1, .slot = 2, .tokens = 5}, {.rows = 1, .slot = 0, .tokens = 7}};
  expect_as_in_double(c, "segments");
}

/// A token's output has the bits that it has alone.
TEST(LowRankUpdate, ATokenIsAlone) {
  if (detail::cpu_kernels() == nullptr) GTEST_SKIP() << "no loops for this processor";
  auto const c = make(13, 100, 72, 8);
  auto const all = add_low_rank(c.x, c.y.clone(), c.a, c.b, {}, 1, 2);
  for (int64_t row = 0; row < 13; ++row)
    EXPECT_TRUE(add_low_rank(c.x.narrow(0, row, 1), c.y.narrow(0, row, 1).clone(), c.a, c.b, {}, 1, 2)
                    .equal(all.narrow(0, row, 1)))
        << row;
}

TEST(LowRankUpdate, NoTokens) {
  auto const c = make(0, 16, 8, 4);
  EXPECT_EQ(add_low_rank(c.x, c.y, c.a, c.b, {}, 1, 2).size(0), 0);
}

}  // namespace
}  // namespace fsllm
