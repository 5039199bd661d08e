// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {

/// Writes one GGUF file (version 3) tensor by tensor, so that only one of them need be in memory.
class GgufWriter {
 public:
  struct Entry {
    std::string name;
    std::string type;            ///< "F32", "F16" or "Q8_0"
    std::vector<int64_t> shape;  ///< in torch's order
  };
  /// Keys keep their order. A value's type in the file is that of the JSON value: text, boolean, float (32
  /// bits), signed and unsigned numbers (32 bits where they fit), or a list of one of them.
  GgufWriter(std::filesystem::path const& path, nlohmann::ordered_json const& metadata,
             std::vector<Entry> entries);
  std::vector<Entry> const& entries() const { return entries_; }
  /// The next tensor of entries(), of its shape, on any device. Values that its type cannot hold are an
  /// Error.
  void write(at::Tensor const& tensor);
  /// Flushes and renames; every tensor must have been written.
  void commit();

 private:
  void pad();
  std::vector<Entry> entries_;
  size_t next_ = 0;
  int64_t written_ = 0;  ///< bytes
  AtomicFile file_;
};

/// Blocks of 32 values as ggml makes them: a scale in half precision, then a signed byte each.
std::string quantize_q8_0(float const* values, int64_t count);

}  // namespace fsllm
