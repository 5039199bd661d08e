// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "fsllm/io/files.hpp"

namespace fsllm {

/// A file that the user names for results. It is opened before the work, so that what cannot be written is an
/// Error then. A regular file, also behind a link, is replaced as a whole by finish(); pipes and devices are
/// written to as they are.
class OutputFile {
 public:
  /// A folder, a place that cannot be written and a pipe that nobody reads are Errors that begin with
  /// `option`.
  OutputFile(std::string const& path, std::string const& option);
  ~OutputFile();
  /// Writes everything, once.
  void finish(std::string_view bytes);

 private:
  std::filesystem::path path_;
  int stream_ = -1;  ///< of a pipe or device
  std::unique_ptr<AtomicFile> file_;
};

}  // namespace fsllm
