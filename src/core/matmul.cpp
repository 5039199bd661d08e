// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/matmul.hpp"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/addmm_cpu_dispatch.h>
#include <ATen/ops/mm_cpu_dispatch.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

namespace fsllm {
namespace {

bool has_unused_avx512() {
#ifdef __x86_64__
  return !__builtin_cpu_is("intel") && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw");
#else
  return false;
#endif
}

/// Multiplications from which on oneDNN, which takes 10 µs a call, gains, and the same for long sums, at
/// which MKL is slower where there are few columns (measured on Zen 5).
constexpr int64_t kSmallestProduct = int64_t{1} << 20, kSmallestOfLongSums = int64_t{1} << 18, kLongSum = 512;
/// Sums with fewer terms move memory: there adding in place counts more.
constexpr int64_t kFewestTermsOfSum = 64;

/// Is one of the two strides of rows or columns 1, as a GEMM wants it?
bool is_dense(at::Tensor const& matrix) {
  auto const columns_apart = matrix.stride(1), rows_apart = matrix.stride(0);
  return (columns_apart == 1 && rows_apart >= matrix.size(1)) ||
         (rows_apart == 1 && columns_apart >= matrix.size(0));
}

bool gains(at::Tensor const& a, at::Tensor const& b) {
  if (a.scalar_type() != at::kFloat || b.scalar_type() != at::kFloat || a.dim() != 2 || b.dim() != 2)
    return false;
  int64_t const terms = a.size(1), smallest = terms < kLongSum ? kSmallestProduct : kSmallestOfLongSums;
  return terms == b.size(0) && a.size(0) > 1 && a.numel() * b.size(1) >= smallest && is_dense(b);
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

at::Tensor mm(at::Tensor const& a, at::Tensor const& b) {
  return gains(a, b) ? onednn(a, b) : at::cpu::mm(a, b);
}

at::Tensor& mm_out(at::Tensor const& a, at::Tensor const& b, at::Tensor& out) {
  bool const fits =
      gains(a, b) && out.scalar_type() == at::kFloat && out.sizes() == at::IntArrayRef{a.size(0), b.size(1)};
  return fits ? out.copy_(onednn(a, b)) : at::cpu::mm_out(out, a, b);
}

at::Tensor addmm(at::Tensor const& c, at::Tensor const& a, at::Tensor const& b, at::Scalar const& beta,
                 at::Scalar const& alpha) {
  bool const is_bias =
      c.dim() == 1 && c.scalar_type() == at::kFloat && c.is_contiguous() && beta.equal(1) && alpha.equal(1);
  return is_bias && gains(a, b) && c.size(0) == b.size(1) ? onednn(a, b, c)
                                                          : at::cpu::addmm(c, a, b, beta, alpha);
}

at::Tensor& addmm_(at::Tensor& c, at::Tensor const& a, at::Tensor const& b, at::Scalar const& beta,
                   at::Scalar const& alpha) {
  bool const fits = gains(a, b) && a.size(1) >= kFewestTermsOfSum && beta.equal(1) &&
                    c.scalar_type() == at::kFloat && c.sizes() == at::IntArrayRef{a.size(0), b.size(1)};
  return fits ? c.add_(onednn(a, b), alpha) : at::cpu::addmm_(c, a, b, beta, alpha);
}

/// LibTorch warns when a kernel is replaced.
struct NoWarnings final : c10::WarningHandler {
  void process(c10::Warning const&) override {}
};

}  // namespace

char const* matmul_library() {
  return has_unused_avx512() ? "oneDNN" : "MKL";
}

void use_matmul_library() {
  if (!has_unused_avx512()) return;
  NoWarnings quiet;
  c10::WarningUtils::WarningHandlerGuard const guard(&quiet);
  static torch::Library kernels(torch::Library::IMPL, "aten", c10::DispatchKey::CPU, __FILE__, __LINE__);
  kernels.impl("mm", TORCH_FN(mm));
  kernels.impl("mm.out", TORCH_FN(mm_out));
  kernels.impl("addmm", TORCH_FN(addmm));
  kernels.impl("addmm_", TORCH_FN(addmm_));
}

}  // namespace fsllm
