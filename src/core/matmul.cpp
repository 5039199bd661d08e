// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/matmul.hpp"

#ifdef __x86_64__
#include <cpuid.h>
#endif

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdlib>

namespace fsllm {
namespace {

struct Kernels {
  bool onednn_fp32 = false;  ///< instead of MKL
  bool wide_fp16 = false, wide_bf16 = false;
  bool native_bf16 = false;
};

#ifdef __x86_64__
/// CPUID's leaf 7, which not every compiler's __builtin_cpu_supports knows.
bool has_avx512_fp16() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 &&
         (d >> 23 & 1) != 0;
}

Kernels kernels_here() {
  bool const avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  return {avx512 && !__builtin_cpu_is("intel"), !has_avx512_fp16(), !__builtin_cpu_supports("avx512bf16"),
          __builtin_cpu_supports("avx512bf16") != 0};
}
#else
Kernels kernels_here() {
  return {};
}
#endif

Kernels const kKernels = kernels_here();

/// Multiplications from which on oneDNN, which takes 10 µs a call, gains, and the same for long sums, at
/// which MKL is slower where there are few columns (measured on Zen 5).
constexpr int64_t kSmallestProduct = int64_t{1} << 20, kSmallestOfLongSums = int64_t{1} << 18, kLongSum = 512;
/// Sums with fewer terms move memory: there adding in place counts more.
constexpr int64_t kFewestTermsOfSum = 64;

/// Smaller products of halves are no faster in fp32.
constexpr int64_t kSmallestWide = int64_t{1} << 15;
/// Values of a half matrix that are there in fp32 at a time: 16 MiB.
constexpr int64_t kPanelValues = int64_t{4} << 20;

bool is_product(at::Tensor const& a, at::Tensor const& b) {
  return a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(0) && a.scalar_type() == b.scalar_type();
}

int64_t multiplications(at::Tensor const& a, at::Tensor const& b) {
  return a.numel() * b.size(1);
}

bool has_size_of_product(at::Tensor const& c, at::Tensor const& a, at::Tensor const& b) {
  return c.scalar_type() == a.scalar_type() && c.sizes() == at::IntArrayRef{a.size(0), b.size(1)};
}

bool is_wide(at::Tensor const& a, at::Tensor const& b) {
  bool const type = (kKernels.wide_fp16 && a.scalar_type() == at::kHalf) ||
                    (kKernels.wide_bf16 && a.scalar_type() == at::kBFloat16);
  return type && is_product(a, b) && multiplications(a, b) >= kSmallestWide;
}

/// Is one of the two strides of rows or columns 1, as a GEMM wants it?
bool is_dense(at::Tensor const& matrix) {
  auto const columns_apart = matrix.stride(1), rows_apart = matrix.stride(0);
  return (columns_apart == 1 && rows_apart >= matrix.size(1)) ||
         (rows_apart == 1 && columns_apart >= matrix.size(0));
}

bool is_for_onednn(at::Tensor const& a, at::Tensor const& b) {
  if (!kKernels.onednn_fp32 || a.scalar_type() != at::kFloat || !is_product(a, b)) return false;
  auto const smallest = a.size(1) < kLongSum ? kSmallestProduct : kSmallestOfLongSums;
  return a.size(0) > 1 && multiplications(a, b) >= smallest && is_dense(b);
}

/// What LibTorch gives to oneDNN too, by a way that takes twice the memory allocations a call.
bool is_half_for_onednn(at::Tensor const& a, at::Tensor const& b) {
  return kKernels.native_bf16 && a.scalar_type() == at::kBFloat16 && is_product(a, b) && a.size(0) > 1 &&
         multiplications(a, b) >= kSmallestProduct && is_dense(a) && is_dense(b);
}

/// a b (+ bias), a [m, k], b [k, n], by oneDNN.
at::Tensor onednn(at::Tensor const& a, at::Tensor const& b, std::optional<at::Tensor> const& bias = {}) {
  using Scalars = c10::List<std::optional<c10::Scalar>>;
  using Signature = at::Tensor(at::Tensor const&, at::Tensor const&, std::optional<at::Tensor> const&,
                               std::string_view, Scalars, std::optional<std::string_view>);
  static auto const linear =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Signature>();
  at::AutoDispatchBelowADInplaceOrView const guard;
  return linear.call(a, b.t(), bias, "none", Scalars(), "");
}

at::Tensor mm(at::Tensor const& a, at::Tensor const& b);
at::Tensor& addmm_(at::Tensor& c, at::Tensor const& a, at::Tensor const& b, at::Scalar const& beta,
                   at::Scalar const& alpha);

/// a b in fp32, as the halves they are; of a large b a part at a time is there in fp32.
at::Tensor wide_product(at::Tensor const& a, at::Tensor const& b) {
  auto const type = a.scalar_type();
  auto const wide = a.to(at::kFloat);
  if (b.numel() <= kPanelValues) return mm(wide, b.to(at::kFloat)).to(type);
  int64_t const terms = b.size(0), columns = b.size(1),
                step = std::max(kLongSum, kPanelValues / std::min(terms, columns));
  if (columns < terms) {
    auto sum = at::zeros({a.size(0), columns}, wide.options());
    for (int64_t begin = 0; begin < terms; begin += step) {
      int64_t const count = std::min(step, terms - begin);
      addmm_(sum, wide.narrow(1, begin, count), b.narrow(0, begin, count).to(at::kFloat), 1, 1);
    }
    return sum.to(type);
  }
  auto const product = at::empty({a.size(0), columns}, a.options());
  for (int64_t begin = 0; begin < columns; begin += step) {
    int64_t const count = std::min(step, columns - begin);
    product.narrow(1, begin, count).copy_(mm(wide, b.narrow(1, begin, count).to(at::kFloat)));
  }
  return product;
}

at::Tensor mm(at::Tensor const& a, at::Tensor const& b) {
  if (is_wide(a, b)) return wide_product(a, b);
  return is_for_onednn(a, b) || is_half_for_onednn(a, b) ? onednn(a, b) : at::cpu::mm(a, b);
}

at::Tensor& mm_out(at::Tensor const& a, at::Tensor const& b, at::Tensor& out) {
  bool const other = is_wide(a, b) || is_for_onednn(a, b);
  return other && has_size_of_product(out, a, b) ? out.copy_(mm(a, b)) : at::cpu::mm_out(out, a, b);
}

at::Tensor addmm(at::Tensor const& c, at::Tensor const& a, at::Tensor const& b, at::Scalar const& beta,
                 at::Scalar const& alpha) {
  auto const type = a.scalar_type();
  if (is_wide(a, b) && c.scalar_type() == type && b.numel() <= kPanelValues)
    return addmm(c.to(at::kFloat), a.to(at::kFloat), b.to(at::kFloat), beta, alpha).to(type);
  bool const is_bias = c.dim() == 1 && c.scalar_type() == type && c.is_contiguous() &&
                       c.size(0) == b.size(1) && beta.equal(1) && alpha.equal(1);
  return is_bias && is_for_onednn(a, b) ? onednn(a, b, c) : at::cpu::addmm(c, a, b, beta, alpha);
}

at::Tensor& addmm_(at::Tensor& c, at::Tensor const& a, at::Tensor const& b, at::Scalar const& beta,
                   at::Scalar const& alpha) {
  if (is_wide(a, b) && has_size_of_product(c, a, b) && b.numel() <= kPanelValues)
    return c.copy_(addmm(c, a, b, beta, alpha));
  bool const fits =
      is_for_onednn(a, b) && has_size_of_product(c, a, b) && a.size(1) >= kFewestTermsOfSum && beta.equal(1);
  return fits ? c.add_(onednn(a, b), alpha) : at::cpu::addmm_(c, a, b, beta, alpha);
}

/// oneDNN and LibTorch's layer around it keep the code that they make for each shape of a product, 1024 of
/// them where nothing is said: up to half a GiB, since batches have another number of tokens each step. The
/// shapes of a step are fewer than this.
constexpr char const* kKeptShapes = "64";

/// LibTorch warns when a kernel is replaced.
struct NoWarnings final : c10::WarningHandler {
  void process(c10::Warning const&) override {}
};

}  // namespace

std::string matmul_kernels() {
  auto const half = [](bool wide) { return wide ? "in fp32" : "by oneDNN"; };
  return fmt::format("fp32 by {}, bf16 {}, fp16 {}", kKernels.onednn_fp32 ? "oneDNN" : "MKL",
                     half(kKernels.wide_bf16), half(kKernels.wide_fp16));
}

void use_matmul_kernels() {
  for (auto const* variable : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"})
    setenv(variable, kKeptShapes, 0);
  NoWarnings quiet;
  c10::WarningUtils::WarningHandlerGuard const guard(&quiet);
  static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
  library.impl("mm", TORCH_FN(mm));
  library.impl("mm.out", TORCH_FN(mm_out));
  library.impl("addmm", TORCH_FN(addmm));
  library.impl("addmm_", TORCH_FN(addmm_));
}

}  // namespace fsllm
