// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/output_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Where links lead to; the last one may lead to a file that is yet to be made.
fs::path behind_links(fs::path path) {
  for (int depth = 0; depth < 40 && fs::is_symlink(fs::symlink_status(path)); ++depth) {
    auto const target = fs::read_symlink(path);
    path = target.is_absolute() ? target : path.parent_path() / target;
  }
  return path;
}

}  // namespace

OutputFile::OutputFile(std::string const& path, std::string const& option) : path_(path) {
  std::error_code problem;
  auto const status = fs::status(path_, problem);
  FSLLM_CHECK(!fs::is_directory(status), "{} {} (it is a folder). Give the path of a file.", option, path);
  if (!fs::exists(status) || fs::is_regular_file(status)) {
    auto const target = behind_links(path_);
    FSLLM_CHECK(!fs::exists(status) || ::access(target.c_str(), W_OK) == 0,
                "{} {} (cannot be written: {}). Choose another file.", option, path, std::strerror(errno));
    file_ = std::make_unique<AtomicFile>(target);
    return;
  }
  stream_ = ::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC);
  FSLLM_CHECK(stream_ >= 0, "{} {} ({}). Choose another file.", option, path,
              errno == ENXIO ? "nobody reads this pipe" : std::strerror(errno));
  ::fcntl(stream_, F_SETFL, ::fcntl(stream_, F_GETFL) & ~O_NONBLOCK);
}

OutputFile::~OutputFile() {
  if (stream_ >= 0) ::close(stream_);
}

void OutputFile::finish(std::string_view bytes) {
  if (file_) {
    file_->write(bytes);
    file_->commit();
    return;
  }
  while (!bytes.empty()) {
    ssize_t const done = ::write(stream_, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    FSLLM_CHECK(done > 0, "cannot write {} ({}). Choose another file.", path_.string(), std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(done));
  }
}

}  // namespace fsllm
