// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// Takes the next piece of a stream.
using ByteSink = std::function<void(std::string_view)>;

/// Hands a file's content over piece by piece, unpacked where it is gzip (told by content, not by name).
/// Gives
/// "", or why the rest cannot be unpacked (truncated, damaged); a file that cannot be opened is an Error.
std::string unpack_file(std::filesystem::path const& path, ByteSink const& sink);

/// A zip archive, read in place.
class ZipArchive {
 public:
  /// A missing, truncated or foreign file is an Error that names it.
  explicit ZipArchive(std::filesystem::path const& path);
  ~ZipArchive();
  /// Of all files in it, sorted.
  std::vector<std::string> const& names() const { return names_; }
  /// As unpack_file, of one of names(); gzip inside the archive is unpacked too.
  std::string unpack(std::string const& name, ByteSink const& sink) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  std::vector<std::string> names_;
};

}  // namespace fsllm
