// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>

#include "fsllm/core/error.hpp"

namespace fsllm::test {

/// A folder below `parent` in which writes fail for lack of space: a tiny tmpfs where this process may mount
/// one (ENOSPC), else a limit on the size of every file that this process writes (EFBIG).
class FullDisk {
 public:
  FullDisk(std::filesystem::path const& parent, int64_t bytes) : path_(parent / "disk") {
    std::filesystem::create_directory(path_);
    auto const options = "size=" + std::to_string(bytes);
    mounted_ = ::mount("tmpfs", path_.c_str(), "tmpfs", 0, options.c_str()) == 0;
    if (mounted_) return;
    old_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &old_limit_);
    rlimit limit = old_limit_;
    limit.rlim_cur = static_cast<rlim_t>(bytes);
    FSLLM_CHECK(::setrlimit(RLIMIT_FSIZE, &limit) == 0, "cannot limit file sizes");
  }
  ~FullDisk() {
    if (mounted_) {
      ::umount2(path_.c_str(), MNT_DETACH);
      return;
    }
    ::setrlimit(RLIMIT_FSIZE, &old_limit_);
    std::signal(SIGXFSZ, old_handler_);
  }
  FullDisk(FullDisk const&) = delete;
  FullDisk& operator=(FullDisk const&) = delete;
  std::filesystem::path const& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool mounted_ = false;
  rlimit old_limit_{};
  void (*old_handler_)(int) = nullptr;
};

}  // namespace fsllm::test
