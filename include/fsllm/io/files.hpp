// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// Whole file as bytes; a missing or unreadable one is an Error that names it.
std::string read_file(std::filesystem::path const& path);
/// Writes to `path`.tmp, flushes to disk, renames: readers see the old or the new file, never half of one.
/// A full disk or a missing folder is an Error; the old file stays.
void write_file_atomic(std::filesystem::path const& path, std::string_view bytes);
/// Flushes a file, or a folder's entries, to disk.
void sync_path(std::filesystem::path const& path);

/// Lower-case hex SHA-256.
std::string sha256(std::string_view bytes);
std::string sha256_file(std::filesystem::path const& path);

/// A read-only memory mapping of a whole file; ranks of one node share its pages.
class MappedFile {
 public:
  explicit MappedFile(std::filesystem::path const& path);
  ~MappedFile();
  MappedFile(MappedFile const&) = delete;
  MappedFile& operator=(MappedFile const&) = delete;
  std::span<std::byte const> bytes() const { return {data_, size_}; }

 private:
  std::byte const* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fsllm
