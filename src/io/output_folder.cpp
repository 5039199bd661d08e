// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/output_folder.hpp"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr char const* kOwn = ".fsllm";
constexpr char const* kFilesFormat = "output_files";

/// A list is only believed where its entries stay below the folder.
bool stays_below(std::string const& name) {
  fs::path const path = name;
  return !name.empty() && path.is_relative() &&
         std::none_of(path.begin(), path.end(),
                      [](fs::path const& part) { return part == ".." || part == "." || part.empty(); });
}

std::set<std::string> read_own_list(fs::path const& file) {
  std::set<std::string> files;
  if (!fs::exists(fs::symlink_status(file))) return files;
  auto const list = read_json(file);
  bool good = list.is_object() && list.value("fsllm_format", "") == kFilesFormat && list.contains("files") &&
              list.at("files").is_array();
  if (good)
    for (auto const& name : list.at("files")) {
      good = good && name.is_string() && stays_below(name.get<std::string>());
      if (good) files.insert(name.get<std::string>());
    }
  FSLLM_CHECK(
      good,
      "{} is damaged (it lists the files that may be replaced). Choose another folder, or remove this one "
      "by hand.",
      file.string());
  return files;
}

/// Is each folder between root and the file a real one? Through a link, files elsewhere would be meant.
bool parents_are_folders(fs::path const& root, std::string const& name) {
  fs::path path = root;
  auto const parent = fs::path(name).parent_path();
  for (auto const& part : parent) {
    path /= part;
    auto const status = fs::symlink_status(path);
    if (fs::exists(status) && !fs::is_directory(status)) return false;
  }
  return true;
}

/// Files, links and other entries below `path` that are not folders.
std::vector<std::string> entries_below(fs::path const& root, std::string const& name) {
  std::vector<std::string> found;
  auto const path = root / name;
  auto const status = fs::symlink_status(path);
  if (!fs::exists(status)) return found;
  if (!fs::is_directory(status)) return {name};
  for (auto const& entry : fs::recursive_directory_iterator(path))
    if (!fs::is_directory(entry.symlink_status())) {
      auto const relative = entry.path().lexically_relative(root);
      if (std::find(relative.begin(), relative.end(), kOwn) == relative.end())
        found.push_back(relative.string());
    }
  return found;
}

/// Makes `path` with its parents; those that were not there, outermost first.
std::vector<fs::path> make_folders(fs::path const& path, FileAccess access) {
  std::vector<fs::path> missing;
  for (auto each = path; !each.empty() && !fs::exists(each); each = each.parent_path())
    missing.push_back(each);
  std::reverse(missing.begin(), missing.end());
  for (auto const& each : missing) {
    bool const last = each == missing.back();
    FSLLM_CHECK(
        ::mkdir(each.c_str(), last && access == FileAccess::owner_only ? 0700 : 0777) == 0 || errno == EEXIST,
        "{} cannot be created ({}). Choose another folder.", path.string(), std::strerror(errno));
  }
  FSLLM_CHECK(fs::is_directory(path),
              "{} is not a folder (results are written there). Choose another folder.", path.string());
  return missing;
}

}  // namespace

OutputFolder::OutputFolder(fs::path root, FileAccess access) : root_(std::move(root)) {
  if (root_.has_relative_path() && root_.filename().empty()) root_ = root_.parent_path();
  made_ = make_folders(root_, access);
  // Its subfolders may be writable where it is not: nothing is removed from those then.
  FSLLM_CHECK(::access(root_.c_str(), W_OK | X_OK) == 0,
              "cannot write {} ({}). Choose another folder, or change its permissions.", root_.string(),
              std::strerror(errno));
  make_private_folder(root_ / kOwn);
  lock_ = std::make_unique<FolderLock>(root_, root_ / kOwn / "lock");
  files_ = read_own_list(root_ / kOwn / "files.json");
  // A job that was killed may have listed files that it never made.
  std::erase_if(files_,
                [&](std::string const& name) { return !fs::exists(fs::symlink_status(root_ / name)); });
  fs::remove_all(scratch_of(root_));
  make_private_folder(scratch_of(root_));
}

OutputFolder::~OutputFolder() {
  if (!lock_->is_held()) return;  // what lies there is another job's now
  std::error_code ignored;
  fs::remove_all(scratch_of(root_), ignored);
  lock_.reset();
  if (!files_.empty()) return;
  // Nothing came of it: leave no empty folders.
  fs::remove(root_ / kOwn / "files.json", ignored);
  fs::remove(root_ / kOwn, ignored);
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) fs::remove(*folder, ignored);
}

fs::path OutputFolder::scratch_of(fs::path const& root) {
  return root / kOwn / "tmp";
}

fs::path OutputFolder::fresh_folder() const {
  auto name = (scratch_of(root_) / "XXXXXX").string();
  FSLLM_CHECK(::mkdtemp(name.data()) != nullptr,
              "cannot make a folder in {} ({}). Check free space and permissions.",
              scratch_of(root_).string(), std::strerror(errno));
  return name;
}

void OutputFolder::check_free(std::vector<std::string> const& names) const {
  for (auto const& name : names) {
    FSLLM_CHECK(parents_are_folders(root_, name),
                "{} is a file or a link (a folder is needed there). Move it away, or choose "
                "another folder.",
                (root_ / fs::path(name).parent_path()).string());
    for (auto const& entry : entries_below(root_, name))
      FSLLM_CHECK(owns(entry),
                  "{} already holds {} (this program did not write it, so it is not replaced). Move it away, "
                  "or choose another "
                  "folder.",
                  root_.string(), entry);
  }
}

void OutputFolder::own(std::vector<std::string> const& names) {
  std::vector<std::string> added;
  for (auto const& name : names)
    if (!owns(name)) added.push_back(name);
  if (added.empty()) return;
  check_free(added);
  files_.insert(added.begin(), added.end());
  save_list();
}

void OutputFolder::adopt(std::vector<std::string> const& names) {
  for (auto const& name : names)
    for (auto& entry : entries_below(root_, name)) files_.insert(entry);
  save_list();
}

void OutputFolder::save_list() {
  nlohmann::json const list{{"fsllm_format", kFilesFormat}, {"version", 1}, {"files", files_}};
  write_file_atomic(root_ / kOwn / "files.json", list.dump(1) + "\n", scratch_of(root_));
}

void OutputFolder::write(std::string const& name, std::string_view bytes) {
  own({name});
  write_file_atomic(root_ / name, bytes, scratch_of(root_));
}

void OutputFolder::move_in(fs::path const& fresh, std::string const& name,
                           std::vector<std::string> const& marks) {
  std::vector<std::string> first, last, all;
  for (auto const& entry : fs::recursive_directory_iterator(fresh)) {
    if (entry.is_directory()) continue;
    auto const file = entry.path().lexically_relative(fresh).string();
    bool const mark = std::find(marks.begin(), marks.end(), file) != marks.end();
    (mark ? last : first).push_back(file);
  }
  first.insert(first.end(), last.begin(), last.end());
  auto const target = [&](std::string const& file) { return (fs::path(name) / file).string(); };
  for (auto const& file : first) all.push_back(target(file));
  auto const before = files_;
  own(all);
  for (auto const& file : first) {
    auto const to = root_ / target(file);
    make_folder(to.parent_path());
    std::error_code problem;
    fs::rename(fresh / file, to, problem);
    FSLLM_CHECK(!problem, "cannot write {} ({}). Check the folder's permissions.", to.string(),
                problem.message());
  }
  sync_path(root_ / name);
  std::error_code ignored;
  fs::remove_all(fresh, ignored);
  if (name.empty()) return;
  std::vector<std::string> old;
  for (auto const& file : before)
    if (file.starts_with(name + "/") && std::find(all.begin(), all.end(), file) == all.end())
      old.push_back(file);
  if (!old.empty()) remove(old);
}

void OutputFolder::remove(std::vector<std::string> const& prefixes) {
  std::set<fs::path> folders;
  std::vector<std::string> gone;
  for (auto const& name : files_) {
    if (std::none_of(prefixes.begin(), prefixes.end(),
                     [&](auto const& prefix) { return name.starts_with(prefix); }))
      continue;
    gone.push_back(name);
    if (!parents_are_folders(root_, name)) continue;
    auto const path = root_ / name;
    std::error_code problem;
    if (!fs::is_directory(fs::symlink_status(path))) fs::remove(path, problem);
    FSLLM_CHECK(!problem, "cannot remove {} ({}). Check the folder's permissions.", path.string(),
                problem.message());
    for (auto folder = fs::path(name).parent_path(); !folder.empty(); folder = folder.parent_path())
      folders.insert(folder);
  }
  if (gone.empty()) return;
  // Deeper paths sort behind their parents; a folder that still holds something stays.
  std::error_code ignored;
  for (auto folder = folders.rbegin(); folder != folders.rend(); ++folder)
    fs::remove(root_ / *folder, ignored);
  for (auto const& name : gone) files_.erase(name);
  save_list();
}

}  // namespace fsllm
