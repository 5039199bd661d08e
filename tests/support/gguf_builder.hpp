// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::test {

/// Bytes of a GGUF file, good or broken, written value by value.
class GgufBuilder {
 public:
  template <class T>
  GgufBuilder& number(T value) {
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes_.append(raw, sizeof raw);
    return *this;
  }
  GgufBuilder& text(std::string_view value) {
    number<uint64_t>(value.size());
    bytes_.append(value);
    return *this;
  }
  GgufBuilder& header(uint64_t tensors, uint64_t keys, uint32_t version = 3) {
    bytes_.append("GGUF");
    return number(version).number(tensors).number(keys);
  }
  GgufBuilder& key(std::string_view name, uint32_t type) { return text(name).number(type); }
  /// `shape` in the file's order, innermost first.
  GgufBuilder& tensor(std::string_view name, std::vector<uint64_t> const& shape, uint32_t type,
                      uint64_t offset) {
    text(name).number(static_cast<uint32_t>(shape.size()));
    for (auto const size : shape) number(size);
    return number(type).number(offset);
  }
  GgufBuilder& pad(size_t alignment = 32) {
    bytes_.resize((bytes_.size() + alignment - 1) / alignment * alignment);
    return *this;
  }
  GgufBuilder& data(size_t count) {
    bytes_.append(count, '\0');
    return *this;
  }
  std::string const& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace fsllm::test
