// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/fixed_point.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "fsllm/comm/huge_pages.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// Adding 1.5·2^52 to |x| < 2^51 rounds x to the nearest integer, ties to even, and leaves it in the low
/// bits; unlike llrint this needs no instruction that plain x86-64 lacks as a vector one.
constexpr double kMagic = 0x1.8p52;
constexpr double kMagicLimit = 0x1p51;
/// |weight·value| in units must stay below this.
constexpr double kLimit = 0x1p62;
constexpr int64_t kBlock = 512;
/// Unit of the bound on the largest sum, so that the bound itself cannot overflow.
constexpr int kBoundShift = 24;

#define FSLLM_ALWAYS_INLINE __attribute__((always_inline))

#ifdef __x86_64__
template <class Loop>
[[gnu::target("avx2")]] auto with_avx2(Loop const& loop) {
  return loop();
}
#endif

/// Runs a loop, all of which is always inlined, compiled for AVX2 where the processor has it. The same bits,
/// as this file is compiled with -ffp-contract=off.
template <class Loop>
auto with_widest_vectors(Loop const& loop) {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) return with_avx2(loop);
#endif
  return loop();
}

/// Largest magnitude, or what is not finite where a value is not: as integers, bits of magnitudes have their
/// order, infinity and what is not a number come last, and a maximum may be taken in any order.
template <class T>
FSLLM_ALWAYS_INLINE inline T largest_of(T const* values, int64_t count) {
  using Bits = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;
  Bits largest = 0;
  for (int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<Bits>(values[i]) & std::numeric_limits<Bits>::max());
  return std::bit_cast<T>(largest);
}

/// Put or add: what encode() and add() do with the integers of a value, modulo 2^64.
enum class Into { empty, sum };

template <Into into>
FSLLM_ALWAYS_INLINE inline void put(int64_t& out, int64_t value) {
  out = into == Into::empty ? value
                            : static_cast<int64_t>(static_cast<uint64_t>(out) + static_cast<uint64_t>(value));
}

/// scale·values rounded, for |scale·values| up to `largest`.
template <Into into, class T>
FSLLM_ALWAYS_INLINE inline void round_to(int64_t* out, T const* values, int64_t count, double scale,
                                         double largest) {
  auto const scaled = [&](int64_t i) { return static_cast<double>(values[i]) * scale; };
  if (largest < kMagicLimit) {
    for (int64_t i = 0; i < count; ++i)
      put<into>(out[i], std::bit_cast<int64_t>(scaled(i) + kMagic) - std::bit_cast<int64_t>(kMagic));
  } else {
    for (int64_t i = 0; i < count; ++i) put<into>(out[i], std::llrint(scaled(i)));
  }
}

/// The same for any values; gives the largest magnitude met, at or above kLimit where it stopped.
template <Into into, class T>
FSLLM_ALWAYS_INLINE inline double encode_blocks(int64_t* out, T const* values, int64_t count, double scale) {
  double largest = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    int64_t const length = std::min(kBlock, count - begin);
    double const here = std::fabs(static_cast<double>(largest_of(values + begin, length)) * scale);
    if (!(here < kLimit)) return std::isfinite(here) ? here : HUGE_VAL;
    largest = std::max(largest, here);
    round_to<into>(out + begin, values + begin, length, scale, here);
  }
  return largest;
}

template <Into into, class T>
double encode_scaled(int64_t* out, T const* values, int64_t count, double scale) {
  return with_widest_vectors(
      [=]() FSLLM_ALWAYS_INLINE { return encode_blocks<into>(out, values, count, scale); });
}

template <Into into>
double encode_tensor(int64_t* out, at::Tensor const& tensor, double scale, std::string const& name) {
  auto const host = tensor.detach().cpu().contiguous();
  switch (host.scalar_type()) {
    case at::kFloat:
      return encode_scaled<into>(out, host.const_data_ptr<float>(), host.numel(), scale);
    case at::kDouble:
      return encode_scaled<into>(out, host.const_data_ptr<double>(), host.numel(), scale);
    case at::kHalf:
    case at::kBFloat16:
      return encode_tensor<into>(out, host.to(at::kFloat), scale, name);
    default:
      fail(fmt::format(
          "tensor {} of type {} has no fixed-point sum (floating point only). Convert it to float first.",
          name, c10::toString(host.scalar_type())));
  }
}

/// static_cast<double>(value), which AVX2 has no vector instruction for: the upper half, exact, and the lower
/// half are put into mantissas, and the one addition rounds.
FSLLM_ALWAYS_INLINE inline double to_double(int64_t value) {
  constexpr uint64_t kLower = 0x4330000000000000, kUpper = 0x4530000080000000;  // 2^52, 2^84 + 2^63
  auto const bits = static_cast<uint64_t>(value);
  auto const lower = std::bit_cast<double>((bits & 0xffffffff) | kLower);
  auto const upper = std::bit_cast<double>((bits >> 32) ^ kUpper);
  return upper - (0x1p84 + 0x1p63 + 0x1p52) + lower;
}

/// sums / divisor; `out` may be the memory that the sums lie in, not behind their begin.
template <class T>
void divide(std::byte* out, int64_t const* sums, int64_t count, double divisor) {
  with_widest_vectors([=]() FSLLM_ALWAYS_INLINE {
    std::array<T, kBlock> quotients;
    for (int64_t begin = 0; begin < count; begin += kBlock) {
      auto const length = static_cast<size_t>(std::min(kBlock, count - begin));
      for (size_t i = 0; i < length; ++i)
        quotients[i] = static_cast<T>(to_double(sums[begin + static_cast<int64_t>(i)]) / divisor);
      std::memcpy(out + begin * static_cast<int64_t>(sizeof(T)), quotients.data(), length * sizeof(T));
    }
  });
}

}  // namespace

FixedPointSum::FixedPointSum(TensorMap const& layout, int bits) : layout_(layout), bits_(bits) {
  FSLLM_CHECK(bits >= 2 && bits <= 60, "hpc.fixed_point_bits = {} (must be in [2, 60]). Use 48.", bits);
  memory_ = at::empty({num_parameters(layout) + 2}, at::kLong);
  advise_huge_pages(memory_.mutable_data_ptr(), static_cast<int64_t>(memory_.nbytes()));
  memory_.zero_();
  values_ = {memory_.mutable_data_ptr<int64_t>(), static_cast<size_t>(memory_.numel())};
}

template <bool adds>
void FixedPointSum::encode_into(int64_t* out, TensorMap const& update, double weight,
                                std::string const& who) const {
  constexpr auto into = adds ? Into::sum : Into::empty;
  check_same_layout(layout_, update, "update of " + who);
  double const unit = std::ldexp(1.0, bits_), limit = kLimit / unit;
  FSLLM_CHECK(std::isfinite(weight) && std::fabs(weight) < limit,
              "the weight of {} is {} (must be finite and below {}). Use relative weights, or lower "
              "hpc.fixed_point_bits.",
              who, weight, limit);
  double largest = std::fabs(weight) * unit;
  for (auto const& [name, tensor] : update) {
    double const here = encode_tensor<into>(out, tensor, weight * unit, name);
    FSLLM_CHECK(here < kLimit,
                "the weighted update of {} by {} holds a value that is {} (exact sums need values below {}). "
                "Lower train.optimizer.lr or clip gradients (grad.grad_clip); hpc.reduce: native takes "
                "larger values.",
                name, who, std::isfinite(here) ? fmt::format("{:g} in magnitude", here / unit) : "not finite",
                limit);
    largest = std::max(largest, here);
    out += tensor.numel();
  }
  put<into>(out[0], static_cast<int64_t>(std::ldexp(largest, -kBoundShift)) + 1);
  put<into>(out[1], std::llrint(weight * unit));
}

std::vector<int64_t> FixedPointSum::encode(TensorMap const& update, double weight,
                                           std::string const& who) const {
  std::vector<int64_t> encoded(values_.size());
  encode_into<false>(encoded.data(), update, weight, who);
  return encoded;
}

void FixedPointSum::add(std::span<int64_t const> encoded) {
  FSLLM_ASSERT(encoded.size() == values_.size());
  for (size_t i = 0; i < values_.size(); ++i) put<Into::sum>(values_[i], encoded[i]);
}

void FixedPointSum::add(TensorMap const& update, double weight, std::string const& who) {
  encode_into<true>(values_.data(), update, weight, who);
}

void FixedPointSum::reduce(Collective& collective, int root) {
  collective.reduce_sum(values_, root);
}

double FixedPointSum::weight() const {
  return std::ldexp(static_cast<double>(values_.back()), -bits_);
}

TensorMap FixedPointSum::mean() const& {
  FixedPointSum copy(layout_, bits_);
  copy.add(values_);
  return std::move(copy).mean();
}

TensorMap FixedPointSum::mean() && {
  return divided_by(static_cast<double>(values_.back()));
}

TensorMap FixedPointSum::total() && {
  return divided_by(std::ldexp(1.0, bits_));
}

TensorMap FixedPointSum::divided_by(double divisor) {
  FSLLM_CHECK(
      values_.back() != 0,
      "no weight arrived (every client of the round failed or has no rows). Check the clients' data.");
  FSLLM_CHECK(
      std::ldexp(static_cast<double>(values_[values_.size() - 2]), kBoundShift) < 0x1p63,
      "the clients' updates may together exceed the exact range of {} (hpc.fixed_point_bits = {}). Lower "
      "hpc.fixed_point_bits, or use hpc.reduce: native.",
      std::ldexp(1.0, 63 - bits_), bits_);
  TensorMap result;
  int64_t position = 0;
  for (auto const& [name, tensor] : layout_) {
    auto const count = tensor.numel();
    auto const type = tensor.scalar_type() == at::kFloat ? at::kFloat : at::kDouble;
    auto const values = memory_.narrow(0, position, count).view(type).narrow(0, 0, count);
    auto* const out = static_cast<std::byte*>(values.mutable_data_ptr());
    auto const* const sums = values_.data() + position;
    if (type == at::kFloat)
      divide<float>(out, sums, count, divisor);
    else
      divide<double>(out, sums, count, divisor);
    result.emplace(name, values.view(tensor.sizes()).to(tensor.options()));
    position += count;
  }
  return result;
}

}  // namespace fsllm
