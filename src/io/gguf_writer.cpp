// SPDX-License-Identifier: Apache-2.0
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "fsllm/io/gguf_writer.hpp"

#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "fsllm/core/error.hpp"
#include "fsllm/core/finite.hpp"
#include "gguf_header.hpp"

namespace fsllm {
namespace {

using nlohmann::ordered_json;

constexpr int64_t kAlignment = 32, kBlock = 32;
constexpr uint32_t kVersion = 3;
enum class WrittenType : uint32_t {
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  text = 8,
  array = 9,
  u64 = 10,
  i64 = 11
};

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_text(std::string& out, std::string const& value) {
  put<uint64_t>(out, value.size());
  out += value;
}

WrittenType type_of(ordered_json const& value) {
  if (value.is_string()) return WrittenType::text;
  if (value.is_boolean()) return WrittenType::boolean;
  if (value.is_number_float()) return WrittenType::f32;
  if (value.is_array()) return WrittenType::array;
  FSLLM_ASSERT(value.is_number_integer());
  if (value.is_number_unsigned())
    return value.get<uint64_t>() >> 32 == 0 ? WrittenType::u32 : WrittenType::u64;
  auto const number = value.get<int64_t>();
  bool const fits =
      number >= std::numeric_limits<int32_t>::min() && number <= std::numeric_limits<int32_t>::max();
  return fits ? WrittenType::i32 : WrittenType::i64;
}

void put_value(std::string& out, ordered_json const& value, WrittenType type) {
  switch (type) {
    case WrittenType::u32:
      return put(out, value.get<uint32_t>());
    case WrittenType::i32:
      return put(out, value.get<int32_t>());
    case WrittenType::u64:
      return put(out, value.get<uint64_t>());
    case WrittenType::i64:
      return put(out, value.get<int64_t>());
    case WrittenType::f32:
      return put(out, value.get<float>());
    case WrittenType::boolean:
      return put<uint8_t>(out, value.get<bool>() ? 1 : 0);
    case WrittenType::text:
      return put_text(out, value.get_ref<std::string const&>());
    case WrittenType::array:
      break;
  }
  auto const of_entries = value.empty() ? WrittenType::text : type_of(value.front());
  put(out, static_cast<uint32_t>(of_entries));
  put<uint64_t>(out, value.size());
  for (auto const& entry : value) {
    FSLLM_ASSERT(type_of(entry) == of_entries);
    put_value(out, entry, of_entries);
  }
}

int64_t bytes_of(GgufWriter::Entry const& entry) {
  auto const& block = *find_gguf_block(entry.type);
  GgufTensor const tensor{entry.shape, entry.type};
  FSLLM_ASSERT(block.elements == 1 || (!entry.shape.empty() && entry.shape.back() % block.elements == 0));
  return tensor.count() / block.elements * block.bytes;
}

int64_t aligned(int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

std::string quantize_q8_0(float const* values, int64_t count) {
  std::string blocks;
  blocks.reserve(static_cast<size_t>(count / kBlock * 34));
  for (auto const* block = values; block < values + count; block += kBlock) {
    float largest = 0;
    for (int64_t i = 0; i < kBlock; ++i) largest = std::max(largest, std::abs(block[i]));
    float const d = largest / 127, inverse = d == 0 ? 0 : 1 / d;
    put(blocks, c10::Half(d).x);
    for (int64_t i = 0; i < kBlock; ++i) put(blocks, static_cast<int8_t>(std::round(block[i] * inverse)));
  }
  return blocks;
}

GgufWriter::GgufWriter(std::filesystem::path const& path, ordered_json const& metadata,
                       std::vector<Entry> entries)
    : entries_(std::move(entries)), file_(path) {
  std::string header = "GGUF";
  put(header, kVersion);
  put<uint64_t>(header, entries_.size());
  put<uint64_t>(header, metadata.size());
  for (auto const& [key, value] : metadata.items()) {
    put_text(header, key);
    auto const type = type_of(value);
    put(header, static_cast<uint32_t>(type));
    put_value(header, value, type);
  }
  int64_t offset = 0;
  for (auto const& entry : entries_) {
    put_text(header, entry.name);
    put<uint32_t>(header, static_cast<uint32_t>(entry.shape.size()));
    for (auto size = entry.shape.rbegin(); size != entry.shape.rend(); ++size)
      put<uint64_t>(header, static_cast<uint64_t>(*size));
    put<uint32_t>(header, find_gguf_block(entry.type)->code);
    put<uint64_t>(header, static_cast<uint64_t>(offset));
    offset += aligned(bytes_of(entry));
  }
  file_.write(header);
  written_ = static_cast<int64_t>(header.size());
  pad();
}

void GgufWriter::pad() {
  std::string const zeros(static_cast<size_t>(aligned(written_) - written_), '\0');
  file_.write(zeros);
  written_ += static_cast<int64_t>(zeros.size());
}

void GgufWriter::write(at::Tensor const& tensor) {
  FSLLM_ASSERT(next_ < entries_.size() && tensor.sizes() == entries_[next_].shape);
  auto const& [name, type, shape] = entries_[next_++];
  auto const values = tensor.detach().cpu().to(at::kFloat).contiguous();
  FSLLM_CHECK(is_finite(values),
              "{} holds values that are not finite (nothing is written). Export another "
              "model.",
              name);
  auto const stored = type == "F16" ? values.to(at::kHalf) : values;
  FSLLM_CHECK(is_finite(stored),
              "{} holds values up to {:g} (F16 holds less: they would become infinite). Write another type: "
              "--dtype fp32 or q8_0.",
              name, values.abs().max().item<double>());
  if (type == "Q8_0") {
    auto const blocks = quantize_q8_0(values.const_data_ptr<float>(), values.numel());
    file_.write(blocks);
    written_ += static_cast<int64_t>(blocks.size());
  } else {
    file_.write({static_cast<char const*>(stored.const_data_ptr()), stored.nbytes()});
    written_ += static_cast<int64_t>(stored.nbytes());
  }
  pad();
}

void GgufWriter::commit() {
  FSLLM_ASSERT(next_ == entries_.size());
  file_.commit();
}

}  // namespace fsllm
