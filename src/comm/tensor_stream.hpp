// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// The tensors of a map as one run of elements, so that chunks need not end where tensors do. Contiguous host
/// tensors are read and written in place; others through a copy that finish() writes back.
class TensorStream {
 public:
  /// All tensors as raw bytes.
  static TensorStream of_bytes(TensorMap& map);
  /// The tensors that are added up in `wire` (Half and BFloat16 in Float), converted on the way.
  static TensorStream of_values(TensorMap& map, at::ScalarType wire);

  /// Elements (bytes of of_bytes).
  int64_t size() const { return size_; }
  void load(int64_t begin, int64_t count, void* to) const;
  void store(int64_t begin, int64_t count, void const* from);
  void finish();

 private:
  struct Piece {
    at::Tensor original, flat;  ///< flat: one-dimensional, contiguous, on the host
    int64_t begin;
  };
  explicit TensorStream(at::ScalarType wire) : wire_(wire) {}
  void append(at::Tensor const& tensor, bool as_bytes);
  /// Calls part(piece, offset in the piece, offset from `begin`, count) for what [begin, begin + count)
  /// covers.
  template <class Part>
  void for_each_part(int64_t begin, int64_t count, Part&& part) const;

  at::ScalarType wire_;
  std::vector<Piece> pieces_;
  int64_t size_ = 0;
};

}  // namespace fsllm
