// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/quantized.hpp"

#include <ATen/Parallel.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/round.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

constexpr int64_t kBlock = 64, kScaleBlock = 256;
constexpr float kLeastScale = 1e-38F;
/// Quantiles of the normal distribution, scaled to [-1, 1] (Dettmers et al. 2023, appendix E).
constexpr std::array<float, 16> kNf4{-1.0F,
                                     -0.6961928009986877F,
                                     -0.5250730514526367F,
                                     -0.39491748809814453F,
                                     -0.28444138169288635F,
                                     -0.18477343022823334F,
                                     -0.09105003625154495F,
                                     0.0F,
                                     0.07958029955625534F,
                                     0.16093020141124725F,
                                     0.24611230194568634F,
                                     0.33791524171829224F,
                                     0.44070982933044434F,
                                     0.5626170039176941F,
                                     0.7229568362236023F,
                                     1.0F};

int64_t count_of(std::vector<int64_t> const& shape) {
  return shape[0] * shape[1];
}
int64_t blocks_of(int64_t count, int64_t block) {
  return (count + block - 1) / block;
}

/// [n] → [ceil(n / block), block], zeros behind the end.
at::Tensor in_blocks(at::Tensor const& values, int64_t block) {
  int64_t const rest = blocks_of(values.numel(), block) * block - values.numel();
  return (rest == 0 ? values : at::cat({values, at::zeros({rest}, values.options())})).view({-1, block});
}

at::Tensor middles(at::Tensor const& ascending) {
  auto const n = ascending.numel();
  return ascending.narrow(0, 0, n - 1).add(ascending.narrow(0, 1, n - 1)).div_(2);
}

/// One block of up to 64 values → their codes; returns the block's scale.
float quantize_block(float const* values, int64_t count, float const* bounds, uint8_t* codes) {
  float scale = 0;
  for (int64_t i = 0; i < count; ++i) scale = std::max(scale, std::abs(values[i]));
  float const inverse = 1 / std::max(scale, kLeastScale);
  std::array<int32_t, kBlock> above{};
  std::array<float, kBlock> scaled{};
  for (int64_t i = 0; i < count; ++i) scaled[static_cast<size_t>(i)] = values[i] * inverse;
  for (size_t bound = 0; bound + 1 < kNf4.size(); ++bound)
    for (size_t i = 0; i < scaled.size(); ++i) above[i] += scaled[i] > bounds[bound] ? 1 : 0;
  int32_t const zero = 7;  // fills the half of a last odd byte
  auto const code = [&](int64_t i) { return i < count ? above[static_cast<size_t>(i)] : zero; };
  for (int64_t i = 0; i < count; i += 2) codes[i / 2] = static_cast<uint8_t>(code(i) << 4 | code(i + 1));
  return scale;
}

/// Pairs of values by byte: a byte of NF4 codes is one step of the loop.
std::array<std::array<float, 2>, 256> const& nf4_pairs() {
  static auto const table = [] {
    std::array<std::array<float, 2>, 256> pairs{};
    for (size_t byte = 0; byte < pairs.size(); ++byte) pairs[byte] = {kNf4[byte >> 4], kNf4[byte & 15]};
    return pairs;
  }();
  return table;
}

void dequantize_block(uint8_t const* codes, float scale, int64_t count, float* out) {
  auto const& pairs = nf4_pairs();
  for (int64_t i = 0; i + 1 < count; i += 2) {
    auto const& pair = pairs[codes[i / 2]];
    out[i] = pair[0] * scale;
    out[i + 1] = pair[1] * scale;
  }
  if (count % 2 != 0) out[count - 1] = pairs[codes[count / 2]][0] * scale;
}

at::Tensor floats_of(at::Tensor const& bytes) {
  auto const out = at::empty({bytes.numel() / 4}, at::kFloat);
  std::memcpy(out.mutable_data_ptr(), bytes.const_data_ptr(), static_cast<size_t>(bytes.numel()));
  return out;
}

at::Tensor bytes_of(at::Tensor const& floats) {
  auto const out = at::empty({floats.numel() * 4}, at::kByte);
  std::memcpy(out.mutable_data_ptr(), floats.const_data_ptr(), static_cast<size_t>(out.numel()));
  return out;
}

}  // namespace

Quantization quantization_of(std::string const& storage_dtype) {
  if (storage_dtype == "nf4") return Quantization::nf4;
  return storage_dtype == "int8" ? Quantization::int8 : Quantization::none;
}

at::Tensor const& nf4_values() {
  static at::Tensor const values = at::tensor(at::ArrayRef<float>(kNf4.data(), kNf4.size()), at::kFloat);
  return values;
}

/// Seven decades with 1, 2, ... 64 fractions each, both signs, 0 and 1 (Dettmers 2016).
at::Tensor const& dynamic_map_values() {
  static at::Tensor const values = [] {
    constexpr int kDecades = 7;
    std::vector<at::Tensor> parts{at::tensor({0.0F, 1.0F})};
    for (int decade = 0; decade < kDecades; ++decade) {
      auto const fractions = middles(at::linspace(0.1, 1, (int64_t{1} << decade) + 1, at::kFloat));
      parts.push_back(at::mul(fractions, std::pow(10.0, decade - (kDecades - 1))));
      parts.push_back(parts.back().neg());
    }
    return std::get<0>(at::cat(parts).sort());
  }();
  return values;
}

QuantizedWeight::QuantizedWeight(at::Tensor const& weight, Quantization kind)
    : kind_(kind), shape_(weight.sizes().vec()) {
  auto const values = weight.to(at::kFloat).contiguous();
  if (kind == Quantization::int8) {
    auto const most = values.abs().amax(1, true).clamp_min_(kLeastScale);
    codes_ = at::round(values.mul(most.reciprocal().mul_(127))).to(at::kChar).view(at::kByte).view({-1});
    scales_ = most.div(127).view({-1});
    return;
  }
  int64_t const count = values.numel(), blocks = blocks_of(count, kBlock);
  codes_ = at::empty({(count + 1) / 2}, at::kByte);
  auto const absmax = at::empty({blocks}, at::kFloat), bounds = middles(nf4_values());
  auto const* in = values.const_data_ptr<float>();
  auto* codes = codes_.mutable_data_ptr<uint8_t>();
  auto* scales = absmax.mutable_data_ptr<float>();
  auto const* bound = bounds.const_data_ptr<float>();
  at::parallel_for(0, blocks, 1024, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b)
      scales[b] = quantize_block(in + b * kBlock, std::min(kBlock, count - b * kBlock), bound,
                                 codes + b * kBlock / 2);
  });
  offset_ = absmax.mean().item<float>();
  auto const centred = in_blocks(absmax.sub(offset_), kScaleBlock);
  auto const most = centred.abs().amax(1, true);
  auto const scaled = centred.mul(most.clamp_min(kLeastScale).reciprocal());
  block_scales_ = at::bucketize(scaled, middles(dynamic_map_values()), true)
                      .to(at::kByte)
                      .view({-1})
                      .narrow(0, 0, blocks);
  scales_ = most.view({-1});
}

int64_t QuantizedWeight::num_bytes(std::vector<int64_t> const& shape, Quantization kind) {
  int64_t const count = count_of(shape), blocks = blocks_of(count, kBlock);
  if (kind == Quantization::int8) return count + 4 * shape[0];
  return (count + 1) / 2 + blocks + 4 * blocks_of(blocks, kScaleBlock) + 4;
}

at::Tensor QuantizedWeight::bytes() const {
  if (kind_ == Quantization::int8) return at::cat({codes_, bytes_of(scales_)});
  return at::cat(
      {codes_, block_scales_, bytes_of(scales_), bytes_of(at::tensor({static_cast<float>(offset_)}))});
}

QuantizedWeight::QuantizedWeight(at::Tensor const& bytes, std::vector<int64_t> const& shape,
                                 Quantization kind)
    : kind_(kind), shape_(shape) {
  FSLLM_ASSERT(bytes.numel() == num_bytes(shape, kind));
  int64_t const count = count_of(shape);
  int64_t const codes = kind == Quantization::int8 ? count : (count + 1) / 2;
  codes_ = bytes.narrow(0, 0, codes);
  if (kind == Quantization::int8) {
    scales_ = floats_of(bytes.narrow(0, codes, 4 * shape[0]));
    return;
  }
  int64_t const blocks = blocks_of(count, kBlock), scales = 4 * blocks_of(blocks, kScaleBlock);
  block_scales_ = bytes.narrow(0, codes, blocks);
  scales_ = floats_of(bytes.narrow(0, codes + blocks, scales));
  offset_ = floats_of(bytes.narrow(0, codes + blocks + scales, 4)).item<float>();
}

QuantizedWeight QuantizedWeight::to(c10::Device device) const {
  auto moved = *this;
  for (auto* part : {&moved.codes_, &moved.block_scales_, &moved.scales_})
    if (part->defined()) *part = part->to(device);
  return moved;
}

at::Tensor QuantizedWeight::block_scales(int64_t first, int64_t count) const {
  auto const numbers = block_scales_.narrow(0, first, count).to(at::kInt);
  auto const scaled = dynamic_map_values().to(codes_.device()).index_select(0, numbers);
  // Blocks of scales may begin in the middle of the range.
  int64_t const before = first % kScaleBlock, groups = blocks_of(before + count, kScaleBlock);
  auto const of_group = scales_.narrow(0, first / kScaleBlock, groups).repeat_interleave(kScaleBlock);
  return scaled.mul_(of_group.narrow(0, before, count)).add_(offset_);
}

/// With tensor operations, for any device.
at::Tensor QuantizedWeight::rows_by_table(int64_t begin, int64_t count) const {
  int64_t const first = begin * shape_[1], values = count * shape_[1], blocks = blocks_of(values, kBlock);
  auto const codes = codes_.narrow(0, first / 2, (values + 1) / 2);
  auto const halves = at::stack({codes.bitwise_right_shift(4), codes.bitwise_and(15)}, 1).view({-1});
  auto const plain =
      nf4_values().to(codes_.device()).index_select(0, halves.to(at::kInt)).narrow(0, 0, values);
  auto const scales = block_scales(first / kBlock, blocks).view({-1, 1});
  return in_blocks(plain, kBlock).mul(scales).view({-1}).narrow(0, 0, values).view({count, shape_[1]});
}

std::pair<int8_t const*, float const*> QuantizedWeight::int8_rows() const {
  FSLLM_ASSERT(kind_ == Quantization::int8);
  return {static_cast<int8_t const*>(codes_.const_data_ptr()), scales_.const_data_ptr<float>()};
}

at::Tensor QuantizedWeight::rows(int64_t begin, int64_t count) const {
  auto out = at::empty({count, shape_[1]}, codes_.options().dtype(at::kFloat));
  rows_into(out, begin);
  return out;
}

void QuantizedWeight::rows_into(at::Tensor const& out, int64_t begin) const {
  int64_t const count = out.size(0), columns = shape_[1], first = begin * columns, values = count * columns;
  if (kind_ == Quantization::int8) {
    out.copy_(codes_.narrow(0, first, values).view(at::kChar).view({count, columns}));
    out.mul_(scales_.narrow(0, begin, count).view({-1, 1}));
    return;
  }
  FSLLM_ASSERT(first % kBlock == 0);
  if (!codes_.is_cpu()) {
    out.copy_(rows_by_table(begin, count));
    return;
  }
  int64_t const blocks = blocks_of(values, kBlock);
  auto const scales = block_scales(first / kBlock, blocks);
  auto const* codes = codes_.const_data_ptr<uint8_t>() + first / 2;
  auto const* scale = scales.const_data_ptr<float>();
  auto* to = out.mutable_data_ptr<float>();
  at::parallel_for(0, blocks, 256, [&](int64_t from, int64_t end) {
    for (int64_t b = from; b < end; ++b)
      dequantize_block(codes + b * kBlock / 2, scale[b], std::min(kBlock, values - b * kBlock),
                       to + b * kBlock);
  });
}

}  // namespace fsllm
