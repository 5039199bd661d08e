// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <string>

namespace fsllm {

/// Texts of small files that another process has read: while an object lives, read_file() of these paths
/// takes them from here, so that many processes do not open one file of a shared file system. One object at
/// a time; made and destroyed where no other thread reads files.
class HandedFiles {
 public:
  HandedFiles();
  ~HandedFiles();
  HandedFiles(HandedFiles const&) = delete;
  HandedFiles& operator=(HandedFiles const&) = delete;
  /// Path → text.
  void add(std::map<std::string, std::string> texts) { texts_.merge(texts); }
  /// Null where no object lives, or has no such file.
  static std::string const* find(std::string const& path);

 private:
  std::map<std::string, std::string> texts_;
};

}  // namespace fsllm
