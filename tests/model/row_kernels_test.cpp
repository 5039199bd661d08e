// SPDX-License-Identifier: Apache-2.0
// The element-wise loops through the operations that use them, beside the same operations in float64, which
// LibTorch's own computes.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "cpu_kernels.hpp"
#include "functions.hpp"

namespace fsllm::detail {
namespace {

using Tensors = std::vector<at::Tensor>;
using Operation = std::function<at::Tensor(Tensors const&)>;

/// Result and gradients of the inputs under a fixed gradient of the result, which `given` holds exactly.
Tensors with_gradients(Operation const& operation, Tensors const& inputs, at::ScalarType type,
                       at::ScalarType given) {
  Tensors leaves;
  leaves.reserve(inputs.size());
  for (auto const& input : inputs) leaves.push_back(input.to(type).detach().set_requires_grad(true));
  auto const y = operation(leaves);
  auto const grads = torch::autograd::grad(
      {y}, leaves, {at::linspace(-1, 1, y.numel(), at::kDouble).to(given).to(type).view(y.sizes())});
  Tensors all{y.detach()};
  all.insert(all.end(), grads.begin(), grads.end());
  return all;
}

/// In a type, from inputs that it holds exactly.
void expect_as_in_double(Operation const& operation, Tensors const& given, at::ScalarType type,
                         double tolerance, std::string const& what) {
  Tensors inputs;
  for (auto const& input : given) inputs.push_back(input.to(type));
  auto const expected = with_gradients(operation, inputs, at::kDouble, type);
  auto const got = with_gradients(operation, inputs, type, type);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].scalar_type(), type);
    double const size = expected[i].abs().max().item<double>();
    EXPECT_LT((got[i].to(at::kDouble) - expected[i]).abs().max().item<double>(), tolerance * (1 + size))
        << what << ", output " << i << ", " << at::toString(type);
  }
  at::NoGradGuard const no_grad;
  EXPECT_TRUE(operation(inputs).equal(got[0])) << what << ": other bits without gradients";
}

void expect_as_in_double(Operation const& operation, Tensors const& inputs, std::string const& what) {
  expect_as_in_double(operation, inputs, at::kFloat, 2e-6, what);
  // Own loops round once, LibTorch's operators one after another each time: half of the last of 8 and 11
  // bits.
  double const roundings = cpu_kernels() != nullptr ? 1 : 4;
  expect_as_in_double(operation, inputs, at::kBFloat16, roundings / 256, what);
  expect_as_in_double(operation, inputs, at::kHalf, roundings / 2048, what);
}

TEST(RowKernels, RmsNorm) {
  for (int64_t const size : {1, 7, 16, 100, 576})
    for (int64_t const rows : {1, 3, 65})
      expect_as_in_double([](Tensors const& of) { return rms_norm(of[0], of[1], 1e-5); },
                          {at::randn({rows, size}) * 3, at::randn({size})}, std::to_string(size));
}

TEST(RowKernels, RmsNormWithFrozenWeight) {
  auto const weight = at::randn({100}).to(at::kBFloat16);
  expect_as_in_double(
      [&](Tensors const& of) { return rms_norm(of[0], weight.to(of[0].scalar_type()), 1e-5); },
      {at::randn({5, 100})}, "frozen");
}

TEST(RowKernels, Rotation) {
  for (bool const neighbours : {false, true})
    for (int64_t const dim : {8, 64, 80})
      for (int64_t const pairs : {dim / 2, dim / 4}) {
        auto const angles = at::randn({6, 1, pairs}, at::kDouble) * 4;
        auto const cos = angles.cos().to(at::kBFloat16), sin = angles.sin().to(at::kBFloat16);
        expect_as_in_double(
            [&](Tensors const& of) {
              auto const type = of[0].scalar_type();
              return rotate(of[0].narrow(1, 1, 3), cos.to(type), sin.to(type),
                            neighbours);  // a view with strides
            },
            {at::randn({6, 5, dim})}, std::to_string(dim));
      }
}

TEST(RowKernels, Swiglu) {
  for (int64_t const size : {1, 15, 64, 100, 1536})
    expect_as_in_double(
        [](Tensors const& of) {
          auto const parts = of[0].chunk(2, 1);
          return swiglu(parts[0], parts[1]);
        },
        {at::randn({3, 2 * size}) * 5}, std::to_string(size));
}

TEST(RowKernels, SwigluOfLargeNumbers) {
  auto const gate = at::tensor({-1e30, -1000.0, -100.0, -87.5, 0.0, 87.5, 100.0, 1e30, 1e-40, -3e38, 3e38,
                                5.0, 6.0, 7.0, 8.0, 9.0, -88.0, 88.0},
                               at::kFloat)
                        .view({1, 18});
  auto const up = at::ones_like(gate);
  expect_as_in_double([](Tensors const& of) { return swiglu(of[0], of[1]); },
                      {gate.slice(1, 1, 7), up.slice(1, 1, 7)}, "moderate");
  at::NoGradGuard const no_grad;
  auto const y = swiglu(gate, up);
  EXPECT_TRUE(y.isfinite().all().item<bool>()) << y;
  auto const nan = swiglu(at::full({1, 20}, std::nan(""), at::kFloat), at::ones({1, 20}));
  EXPECT_TRUE(nan.isnan().all().item<bool>());
}

}  // namespace
}  // namespace fsllm::detail
