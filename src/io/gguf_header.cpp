// SPDX-License-Identifier: Apache-2.0
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#include "gguf_header.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr uint64_t kLargestName = 65535, kMostDimensions = 4;
constexpr int kDeepestArray = 8;

enum class ValueType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, text, array, u64, i64, f64 };

/// Reads little-endian values in order; beyond the end is an Error that names the file.
class Cursor {
 public:
  Cursor(std::string_view file, std::string const& source) : file_(file), source_(source) {}

  template <class... Args>
  void require(bool condition, fmt::format_string<Args...> why, Args&&... args) const {
    if (condition) return;  // a vocabulary is a hundred thousand texts
    fail(fmt::format("{} is not a valid GGUF file ({}). Copy or convert it again.", source_,
                     fmt::format(why, std::forward<Args>(args)...)));
  }
  size_t position() const { return at_; }
  size_t left() const { return file_.size() - at_; }

  std::string_view bytes(uint64_t count, std::string const& what) {
    require(count <= left(), "{} at byte {} needs {} bytes, {} are left", what, at_, count, left());
    auto const taken = file_.substr(at_, count);
    at_ += count;
    return taken;
  }
  template <class T>
  T number(std::string const& what) {
    T value;
    std::memcpy(&value, bytes(sizeof(T), what).data(), sizeof(T));
    return value;
  }
  std::string text(std::string const& what, uint64_t longest = std::numeric_limits<uint64_t>::max()) {
    auto const length = number<uint64_t>(what);
    require(length <= longest, "{} has {} bytes", what, length);
    return std::string(bytes(length, what));
  }

 private:
  std::string_view file_;
  std::string const& source_;
  size_t at_ = 0;
};

/// Fewest bytes that a value of a type takes; 0 for an unknown type.
uint64_t least_bytes(uint32_t type) {
  static constexpr uint64_t kSizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};
  return type < std::size(kSizes) ? kSizes[type] : 0;
}

/// `key` stands in quotes, for messages.
json read_metadata(Cursor& cursor, uint32_t type, std::string const& key, int depth);

json read_array(Cursor& cursor, std::string const& key, int depth) {
  cursor.require(depth < kDeepestArray, "{} nests more than {} arrays", key, kDeepestArray);
  auto const type = cursor.number<uint32_t>(key);
  auto const count = cursor.number<uint64_t>(key);
  cursor.require(least_bytes(type) > 0, "{} is an array of the unknown type {}", key, type);
  cursor.require(count <= cursor.left() / least_bytes(type), "{} claims {} elements, {} bytes are left", key,
                 count, cursor.left());
  json::array_t values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(read_metadata(cursor, type, key, depth + 1));
  return values;
}

json read_metadata(Cursor& cursor, uint32_t type, std::string const& key, int depth) {
  switch (static_cast<ValueType>(type)) {
    case ValueType::u8:
      return cursor.number<uint8_t>(key);
    case ValueType::i8:
      return cursor.number<int8_t>(key);
    case ValueType::u16:
      return cursor.number<uint16_t>(key);
    case ValueType::i16:
      return cursor.number<int16_t>(key);
    case ValueType::u32:
      return cursor.number<uint32_t>(key);
    case ValueType::i32:
      return cursor.number<int32_t>(key);
    case ValueType::f32:
      return cursor.number<float>(key);
    case ValueType::u64:
      return cursor.number<uint64_t>(key);
    case ValueType::i64:
      return cursor.number<int64_t>(key);
    case ValueType::f64:
      return cursor.number<double>(key);
    case ValueType::text:
      return cursor.text(key);
    case ValueType::array:
      return read_array(cursor, key, depth);
    case ValueType::boolean: {
      auto const value = cursor.number<uint8_t>(key);
      cursor.require(value <= 1, "{} is a boolean with the value {}", key, value);
      return value == 1;
    }
  }
  cursor.require(false, "{} has the unknown type {}", key, type);
  return {};
}

void read_metadata(Cursor& cursor, uint64_t count, GgufHeader& header) {
  for (uint64_t i = 0; i < count; ++i) {
    auto const name = cursor.text(fmt::format("metadata key {}", i), kLargestName);
    auto const key = "'" + name + "'";
    auto const type = cursor.number<uint32_t>(key);
    bool const added = header.metadata.emplace(name, read_metadata(cursor, type, key, 0)).second;
    cursor.require(added, "it names {} twice", key);
  }
}

std::vector<int64_t> read_shape(Cursor& cursor, std::string const& name) {
  auto const dimensions = cursor.number<uint32_t>(name);
  cursor.require(dimensions <= kMostDimensions, "'{}' has {} dimensions", name, dimensions);
  std::vector<int64_t> shape;
  for (uint32_t d = 0; d < dimensions; ++d) {
    auto const size = cursor.number<uint64_t>(name);
    cursor.require(size >= 1 && size <= uint64_t{std::numeric_limits<int64_t>::max()},
                   "'{}' has a dimension of {}", name, size);
    shape.insert(shape.begin(), static_cast<int64_t>(size));
  }
  return shape;
}

/// Bytes of a tensor, whose rows must be whole blocks.
int64_t tensor_bytes(Cursor const& cursor, std::string const& name, std::vector<int64_t> const& shape,
                     GgufBlock const& block) {
  int64_t const row = shape.empty() ? 1 : shape.back();
  cursor.require(row % block.elements == 0, "'{}' has rows of {} elements, {} has blocks of {}", name, row,
                 block.name, block.elements);
  int64_t bytes = row / block.elements;
  bool fits = !__builtin_mul_overflow(bytes, block.bytes, &bytes);
  for (size_t d = 0; d + 1 < shape.size(); ++d)
    fits = fits && !__builtin_mul_overflow(bytes, shape[d], &bytes);
  int64_t elements = 1;
  for (int64_t const size : shape) fits = fits && !__builtin_mul_overflow(elements, size, &elements);
  cursor.require(fits && elements <= std::numeric_limits<int64_t>::max() / 8, "'{}' is too large", name);
  return bytes;
}

void read_tensor_infos(Cursor& cursor, uint64_t count, int64_t alignment, GgufHeader& header) {
  for (uint64_t i = 0; i < count; ++i) {
    auto const name = cursor.text(fmt::format("the name of tensor {}", i), kLargestName);
    GgufTensor tensor;
    tensor.shape = read_shape(cursor, name);
    auto const code = cursor.number<uint32_t>(name);
    auto const offset = cursor.number<uint64_t>(name);
    auto const* block = find_gguf_block(code);
    cursor.require(block != nullptr, "'{}' has the unknown type {}", name, code);
    cursor.require(offset % static_cast<uint64_t>(alignment) == 0 &&
                       offset <= uint64_t{std::numeric_limits<int64_t>::max()} / 2,
                   "'{}' lies at {}, not a multiple of {}", name, offset, alignment);
    tensor.type = block->name;
    tensor.begin = static_cast<int64_t>(offset);
    tensor.bytes = tensor_bytes(cursor, name, tensor.shape, *block);
    cursor.require(header.tensors.emplace(name, std::move(tensor)).second, "it names the tensor '{}' twice",
                   name);
  }
}

int64_t alignment_of(Cursor const& cursor, json const& metadata) {
  auto const found = metadata.find("general.alignment");
  if (found == metadata.end()) return 32;
  uint64_t const value = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
  cursor.require(value >= 1 && value <= (uint64_t{1} << 30) && (value & (value - 1)) == 0,
                 "general.alignment is {}, not a power of two", found->dump());
  return static_cast<int64_t>(value);
}

/// Offsets count from the start of the file from here on; no two tensors share a byte.
void place_tensors(Cursor const& cursor, int64_t file_size, GgufHeader& header) {
  std::vector<std::pair<std::string const*, GgufTensor*>> order;
  for (auto& [name, tensor] : header.tensors) {
    cursor.require(header.data_begin <= file_size && tensor.begin <= file_size - header.data_begin &&
                       tensor.bytes <= file_size - header.data_begin - tensor.begin,
                   "'{}' ends beyond the file's {} bytes; is it cut short?", name, file_size);
    tensor.begin += header.data_begin;
    order.emplace_back(&name, &tensor);
  }
  std::sort(order.begin(), order.end(),
            [](auto const& a, auto const& b) { return a.second->begin < b.second->begin; });
  for (size_t i = 1; i < order.size(); ++i)
    cursor.require(order[i - 1].second->begin + order[i - 1].second->bytes <= order[i].second->begin,
                   "'{}' overlaps '{}'", *order[i - 1].first, *order[i].first);
}

}  // namespace

GgufHeader parse_gguf_header(std::string_view file, std::string const& source) {
  Cursor cursor(file, source);
  cursor.require(file.substr(0, 4) == "GGUF", "it does not begin with GGUF");
  cursor.bytes(4, "the header");
  auto const version = cursor.number<uint32_t>("the version");
  cursor.require((version & 0xFFFF) != 0, "its numbers are big-endian, which this program does not read");
  cursor.require(version == 2 || version == 3, "it has version {}; this program reads 2 and 3", version);
  auto const num_tensors = cursor.number<uint64_t>("the number of tensors");
  auto const num_keys = cursor.number<uint64_t>("the number of metadata keys");
  GgufHeader header;
  read_metadata(cursor, num_keys, header);
  auto const alignment = alignment_of(cursor, header.metadata);
  read_tensor_infos(cursor, num_tensors, alignment, header);
  auto const end = static_cast<int64_t>(cursor.position());
  header.data_begin = (end + alignment - 1) / alignment * alignment;
  place_tensors(cursor, static_cast<int64_t>(file.size()), header);
  return header;
}

}  // namespace fsllm
