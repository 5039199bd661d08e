// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Exact sum of weighted updates: each weight·value is rounded once to a 64-bit integer with unit 2^-bits,
/// and integers add the same in any order, so the result does not depend on ranks or placement.
class FixedPointSum {
 public:
  /// `layout` gives names and shapes; 2 <= bits <= 60.
  FixedPointSum(TensorMap const& layout, int bits);
  FixedPointSum(FixedPointSum const&) = delete;
  FixedPointSum& operator=(FixedPointSum const&) = delete;

  /// weight·update as integers, which add() takes: what masks are added to, and what provenance can be shown
  /// for. Fails, naming tensor and `who`, when a value is not finite or |weight·value| >= 2^(62-bits).
  std::vector<int64_t> encode(TensorMap const& update, double weight, std::string const& who) const;
  /// Adds what encode() gave, modulo 2^64.
  void add(std::span<int64_t const> encoded);
  /// The same as add(encode(…)) in one pass over memory. After an Error the sum is of no use.
  void add(TensorMap const& update, double weight, std::string const& who);
  /// The sum as it is: add() takes it too.
  std::span<int64_t const> encoded() const { return values_; }
  /// Collective: sums over ranks; afterwards `root` holds the total of values and weights.
  void reduce(Collective& collective, int root);
  /// The weight that arrived. On the root after reduce(): of all ranks.
  double weight() const;
  /// total / weight(), in the dtypes of the layout. Valid on the root after reduce(). Fails when no weight
  /// arrived or when the clients together could have left the range of 64 bits.
  TensorMap mean() const&;
  /// The same in the memory of the sum, which is of no use afterwards.
  TensorMap mean() &&;
  /// The same without the division.
  TensorMap total() &&;

 private:
  template <bool adds>
  void encode_into(int64_t* out, TensorMap const& update, double weight, std::string const& who) const;
  TensorMap divided_by(double divisor);
  TensorMap layout_;
  int bits_;
  at::Tensor memory_;
  std::span<int64_t>
      values_;  ///< all tensors in name order, then the bound on the largest sum, then the weight
};

}  // namespace fsllm
