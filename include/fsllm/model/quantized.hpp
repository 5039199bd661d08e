// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fsllm {

/// How a frozen matrix is kept: `nf4` is QLoRA's (Dettmers et al. 2023, section 3): 4-bit NormalFloat in
/// blocks of 64, the blocks' scales quantised again in blocks of 256; `int8` is LLM.int8()'s (Dettmers et al.
/// 2022, section 2.1): one scale a stored row.
enum class Quantization { none, nf4, int8 };

/// A frozen matrix [rows, columns] in 4.13 or 8 bits a value, in the arithmetic of bitsandbytes.
class QuantizedWeight {
 public:
  /// Quantises `weight` (any floating type, on the CPU).
  QuantizedWeight(at::Tensor const& weight, Quantization kind);
  /// What bytes() gave, of a matrix of this shape.
  QuantizedWeight(at::Tensor const& bytes, std::vector<int64_t> const& shape, Quantization kind);

  /// Everything in one row of uint8, for a file: codes, then scales.
  at::Tensor bytes() const;
  static int64_t num_bytes(std::vector<int64_t> const& shape, Quantization kind);

  std::vector<int64_t> const& shape() const { return shape_; }
  c10::Device device() const { return codes_.device(); }
  Quantization kind() const { return kind_; }
  QuantizedWeight to(c10::Device device) const;
  /// Rows [begin, begin + count) in fp32; begin · columns must be a multiple of 64.
  at::Tensor rows(int64_t begin, int64_t count) const;
  /// The same into `out`, contiguous fp32 [count, columns] on this device.
  void rows_into(at::Tensor const& out, int64_t begin) const;
  /// Of int8 alone, on the CPU: codes [rows, columns], and what each row's are to be multiplied by [rows].
  std::pair<int8_t const*, float const*> int8_rows() const;
  at::Tensor dequantized() const { return rows(0, shape_[0]); }

 private:
  QuantizedWeight() = default;
  at::Tensor block_scales(int64_t first, int64_t count) const;
  at::Tensor rows_by_table(int64_t begin, int64_t count) const;

  Quantization kind_ = Quantization::none;
  std::vector<int64_t> shape_;
  at::Tensor codes_;         ///< uint8; nf4: two a byte, the first in the high half
  at::Tensor block_scales_;  ///< nf4: uint8 [blocks], numbers of the 8-bit dynamic map
  at::Tensor scales_;        ///< fp32; nf4: [blocks / 256], int8: [rows]
  double offset_ = 0;        ///< nf4: mean of the blocks' scales, taken off before they were quantised
};

/// "nf4" and "int8"; none for any other name.
Quantization quantization_of(std::string const& storage_dtype);
/// The 16 values of NF4 and the 256 of the signed dynamic map, ascending, fp32.
at::Tensor const& nf4_values();
at::Tensor const& dynamic_map_values();

}  // namespace fsllm
