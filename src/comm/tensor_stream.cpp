// SPDX-License-Identifier: Apache-2.0
#include "tensor_stream.hpp"

#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

at::ScalarType wire_type(std::string const& name, at::ScalarType type) {
  switch (type) {
    case at::kFloat:
    case at::kHalf:
    case at::kBFloat16:
      return at::kFloat;
    case at::kDouble:
      return at::kDouble;
    case at::kLong:
      return at::kLong;
    default:
      fail(
          fmt::format("tensor {} of type {} cannot be added across ranks (no rule for that type). Convert it "
                      "to float first.",
                      name, c10::toString(type)));
  }
}

}  // namespace

TensorStream TensorStream::of_bytes(TensorMap& map) {
  TensorStream stream(at::kByte);
  for (auto const& [_, tensor] : map) stream.append(tensor, true);
  return stream;
}

TensorStream TensorStream::of_values(TensorMap& map, at::ScalarType wire) {
  TensorStream stream(wire);
  for (auto const& [name, tensor] : map)
    if (wire_type(name, tensor.scalar_type()) == wire) stream.append(tensor, false);
  return stream;
}

void TensorStream::append(at::Tensor const& tensor, bool as_bytes) {
  if (tensor.numel() == 0) return;
  auto const original = tensor.detach();
  auto const host = original.cpu().contiguous().view({-1});
  pieces_.push_back({original, as_bytes ? host.view(at::kByte) : host, size_});
  size_ += pieces_.back().flat.numel();
}

template <class Part>
void TensorStream::for_each_part(int64_t begin, int64_t count, Part&& part) const {
  auto piece = std::upper_bound(pieces_.begin(), pieces_.end(), begin,
                                [](int64_t position, Piece const& p) { return position < p.begin; });
  if (piece != pieces_.begin()) --piece;
  for (int64_t done = 0; done < count; ++piece) {
    int64_t const offset = begin + done - piece->begin;
    int64_t const length = std::min(count - done, piece->flat.numel() - offset);
    part(*piece, offset, done, length);
    done += length;
  }
}

void TensorStream::load(int64_t begin, int64_t count, void* to) const {
  auto const wire_size = static_cast<int64_t>(c10::elementSize(wire_));
  for_each_part(begin, count, [&](Piece const& piece, int64_t offset, int64_t done, int64_t length) {
    auto* const target = static_cast<std::byte*>(to) + done * wire_size;
    auto const* const source = static_cast<std::byte const*>(piece.flat.const_data_ptr());
    if (piece.flat.scalar_type() == wire_)
      std::memcpy(target, source + offset * wire_size, static_cast<size_t>(length * wire_size));
    else
      at::from_blob(target, {length}, wire_).copy_(piece.flat.narrow(0, offset, length));
  });
}

void TensorStream::store(int64_t begin, int64_t count, void const* from) {
  auto const wire_size = static_cast<int64_t>(c10::elementSize(wire_));
  for_each_part(begin, count, [&](Piece const& piece, int64_t offset, int64_t done, int64_t length) {
    auto* const source = const_cast<std::byte*>(static_cast<std::byte const*>(from)) + done * wire_size;
    auto* const target = static_cast<std::byte*>(piece.flat.mutable_data_ptr());
    if (piece.flat.scalar_type() == wire_)
      std::memcpy(target + offset * wire_size, source, static_cast<size_t>(length * wire_size));
    else
      piece.flat.narrow(0, offset, length).copy_(at::from_blob(source, {length}, wire_));
  });
}

void TensorStream::finish() {
  for (auto const& piece : pieces_) {
    if (piece.original.is_cpu() && piece.original.is_contiguous()) continue;
    auto const values = piece.flat.scalar_type() == piece.original.scalar_type()
                            ? piece.flat
                            : piece.flat.view(piece.original.scalar_type());
    piece.original.copy_(values.view(piece.original.sizes()));
  }
}

}  // namespace fsllm
