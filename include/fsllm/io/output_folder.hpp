// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/io/files.hpp"
#include "fsllm/io/folder_lock.hpp"

namespace fsllm {

/// A folder that this job writes results to. Its subfolder .fsllm/ holds the lock, the list of the files that
/// the program wrote (an entry is added before its file is made), and a place for files under construction.
/// Only what the list names is ever removed or replaced; anything else in the folder belongs to the user. One
/// process (rank 0) holds an OutputFolder; other ranks may write files that it owns, by way of scratch_of().
class OutputFolder {
 public:
  /// Makes the folder unless it is there, and locks it. A folder that another job uses, or that cannot be
  /// written, is an Error.
  explicit OutputFolder(std::filesystem::path root, FileAccess access = FileAccess::by_umask);
  ~OutputFolder();
  OutputFolder(OutputFolder const&) = delete;
  OutputFolder& operator=(OutputFolder const&) = delete;

  std::filesystem::path const& root() const { return root_; }
  /// Where files of `root` are made before they get their names: AtomicFile's second argument. Emptied at
  /// start.
  static std::filesystem::path scratch_of(std::filesystem::path const& root);
  /// A new empty folder in scratch, for results of several files.
  std::filesystem::path fresh_folder() const;

  bool owns(std::string const& name) const { return files_.contains(name); }
  bool owns_anything() const { return !files_.empty(); }
  /// Records files (paths below root) as this program's. One that is there already and is not in the list is
  /// an Error, and so is a file where a folder of the path should be.
  void own(std::vector<std::string> const& names);
  /// Takes what lies under `names` for the program's own.
  void adopt(std::vector<std::string> const& names);
  /// An Error if `names` (files or folders below root) hold anything that is not in the list.
  void check_free(std::vector<std::string> const& names) const;

  /// Writes one file, whole or not at all.
  void write(std::string const& name, std::string_view bytes);
  /// Gives the files of `fresh` (from fresh_folder()) their places in the subfolder `name` ("" for root),
  /// those named in `marks` last: a reader that finds a mark finds the rest. Owned files of the subfolder
  /// that `fresh` has no counterpart of are removed.
  void move_in(std::filesystem::path const& fresh, std::string const& name,
               std::vector<std::string> const& marks);

  /// Removes listed files whose path begins with one of `prefixes`, and folders that this leaves empty.
  void remove(std::vector<std::string> const& prefixes);
  /// Removes all that is listed.
  void remove_all() { remove({""}); }
  /// An Error if the folder is gone, or another job has taken it over.
  void check() const { lock_->check(); }

 private:
  void save_list();
  std::filesystem::path root_;
  std::vector<std::filesystem::path> made_;  ///< folders that the constructor made, outermost first
  std::unique_ptr<FolderLock> lock_;
  std::set<std::string> files_;
};

}  // namespace fsllm
