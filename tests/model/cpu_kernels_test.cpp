// SPDX-License-Identifier: Apache-2.0
#include "cpu_kernels.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh.h>
#include <gtest/gtest.h>

#include <cmath>

namespace fsllm::detail {
namespace {

/// Kernels that this processor can run, by name.
std::vector<std::pair<std::string, CpuKernels const*>> runnable() {
  std::vector<std::pair<std::string, CpuKernels const*>> found;
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    found.emplace_back("avx2", &kAvx2Kernels);
  if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512", &kAvx512Kernels);
#endif
  return found;
}

struct Stored {
  StoredType type;
  at::ScalarType scalar;
};

TEST(CpuKernels, SkinnyProductsAreProducts) {
  if (runnable().empty()) GTEST_SKIP() << "neither AVX2 nor AVX-512 here";
  for (auto const& [type, scalar] : {Stored{StoredType::fp32, at::kFloat},
                                     {StoredType::bf16, at::kBFloat16},
                                     {StoredType::fp16, at::kHalf},
                                     {StoredType::int8, at::kChar}})
    for (int64_t const terms : {1, 15, 64, 100, 577})
      for (int64_t const rows : {1, 2, 3, 7, 16}) {
        constexpr int64_t kColumns = 23;
        auto const weight = type == StoredType::int8 ? at::randint(-127, 128, {kColumns, terms}, at::kChar)
                                                     : at::randn({kColumns, terms}).to(scalar);
        auto const scales = at::randn({kColumns}), x = at::randn({rows, terms});
        auto expected = x.to(at::kDouble).matmul(weight.to(at::kDouble).t());
        if (type == StoredType::int8) expected = expected * scales.to(at::kDouble);
        for (auto const& [name, kernels] : runnable()) {
          auto const y = at::empty({rows, kColumns});
          SkinnyProduct const product{type,
                                      weight.const_data_ptr(),
                                      type == StoredType::int8 ? scales.const_data_ptr<float>() : nullptr,
                                      x.const_data_ptr<float>(),
                                      rows,
                                      terms,
                                      y.mutable_data_ptr<float>(),
                                      kColumns};
          kernels->skinny_product(product, 0, 5);
          kernels->skinny_product(product, 5, kColumns);
          double const size = expected.abs().max().item<double>();
          EXPECT_LT((y - expected).abs().max().item<double>(), 1e-5 * (1 + size))
              << name << " " << terms << " " << rows;
        }
      }
}

/// The rule in float64, of one row: q [heads, dim], k and v [tokens, kv_heads, dim].
at::Tensor attended(at::Tensor const& q, at::Tensor const& k, at::Tensor const& v, double scale,
                    double softcap, at::Tensor const& slopes) {
  auto const group = q.size(0) / k.size(1);
  auto const keys = at::repeat_interleave(k.to(at::kDouble), group, 1);
  auto const values = at::repeat_interleave(v.to(at::kDouble), group, 1);
  auto scores = at::einsum("hd,shd->hs", {q.to(at::kDouble), keys}) * scale;
  if (softcap > 0) scores = at::tanh(scores / softcap) * softcap;
  if (slopes.defined())
    scores = scores + slopes.to(at::kDouble).view({-1, 1}) * at::arange(1 - k.size(0), 1, at::kDouble);
  return at::einsum("hs,shd->hd", {at::softmax(scores, -1), values});
}

TEST(CpuKernels, OneQueryIsAttention) {
  if (runnable().empty()) GTEST_SKIP() << "neither AVX2 nor AVX-512 here";
  struct Shape {
    int64_t heads, kv_heads, dim;
  };
  for (auto const& [heads, kv_heads, dim] : {Shape{9, 3, 64}, {4, 4, 8}, {6, 2, 80}, {2, 1, 20}, {8, 1, 128}})
    for (int64_t const tokens : {1, 2, 17, 300})
      for (double const softcap : {0.0, 5.0})
        for (bool const sloped : {false, true}) {
          auto const q = at::randn({heads, dim}) * 3, k = at::randn({tokens, kv_heads, dim}),
                     v = at::randn({tokens, kv_heads, dim});
          auto const slopes = sloped ? at::randn({heads}).abs() : at::Tensor();
          double const scale = 1 / std::sqrt(static_cast<double>(dim));
          auto const expected = attended(q, k, v, scale, softcap, slopes);
          for (auto const& [name, kernels] : runnable()) {
            auto const out = at::empty({heads, dim}), weights = at::empty({tokens});
            kernels->one_query({q.const_data_ptr<float>(), k.const_data_ptr<float>(),
                                v.const_data_ptr<float>(), tokens, heads, kv_heads, dim,
                                static_cast<float>(scale), static_cast<float>(softcap),
                                sloped ? slopes.const_data_ptr<float>() : nullptr,
                                weights.mutable_data_ptr<float>(), out.mutable_data_ptr<float>()});
            EXPECT_LT((out - expected).abs().max().item<double>(), 5e-6)
                << name << " " << dim << " " << tokens;
          }
        }
}

TEST(CpuKernels, NotANumberStaysOne) {
  for (auto const& [name, kernels] : runnable()) {
    auto const k = at::randn({20, 2, 16}), v = at::randn({20, 2, 16});
    auto const q = at::full({4, 16}, std::nan(""), at::kFloat), out = at::empty({4, 16}),
               weights = at::empty({20});
    kernels->one_query({q.const_data_ptr<float>(), k.const_data_ptr<float>(), v.const_data_ptr<float>(), 20,
                        4, 2, 16, 0.25F, 0, nullptr, weights.mutable_data_ptr<float>(),
                        out.mutable_data_ptr<float>()});
    EXPECT_TRUE(out.isnan().all().item<bool>()) << name;
  }
}

}  // namespace
}  // namespace fsllm::detail
