// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

namespace fsllm {

/// Makes this process the only job that writes to a folder, by a file that is created exclusively: that works
/// on NFS and Lustre, where flock may not. The file says who holds the lock. One whose owner is known to be
/// gone (a process of this host that ended, a host that was started anew, an earlier start of the same Slurm
/// job) is taken over; any other is an Error that names host, process and start.
class FolderLock {
 public:
  /// `folder` is named in messages; `file` is the lock's path, whose parent exists.
  FolderLock(std::filesystem::path folder, std::filesystem::path file);
  ~FolderLock();
  FolderLock(FolderLock const&) = delete;
  FolderLock& operator=(FolderLock const&) = delete;

  bool is_held() const;
  /// An Error if the folder was removed, or another job has the lock now.
  void check() const;

 private:
  std::filesystem::path folder_, file_;
  std::string content_;
};

/// Who holds a FolderLock's file, for messages: "" where nobody does, or the owner is known to be gone.
std::string lock_holder(std::filesystem::path const& file);

}  // namespace fsllm
