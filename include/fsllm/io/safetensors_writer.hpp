// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {

/// Writes one safetensors file tensor by tensor, so that only one of them need be in memory. The layout comes
/// first; order() says in which order the tensors are wanted: larger element types first, then by name, so
/// that every tensor is aligned (as the reference implementation does).
class SafetensorsWriter {
 public:
  struct Entry {
    std::string name;
    at::ScalarType type;
    std::vector<int64_t> shape;
  };
  /// The data begins at a multiple of `alignment` (at least 8). `scratch`, `access`: see AtomicFile.
  SafetensorsWriter(std::filesystem::path const& path, std::vector<Entry> entries,
                    std::map<std::string, std::string> const& metadata, size_t alignment,
                    std::filesystem::path const& scratch = {}, FileAccess access = FileAccess::by_umask);
  std::vector<Entry> const& order() const { return entries_; }
  /// The next tensor of order(), of its type and shape, on any device.
  void write(at::Tensor const& tensor);
  /// Flushes and renames; every tensor must have been written.
  void commit();

 private:
  std::vector<Entry> entries_;
  size_t next_ = 0;
  AtomicFile file_;
};

}  // namespace fsllm
