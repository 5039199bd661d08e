// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/checkpoint.hpp"

#include <fcntl.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <vector>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "state_file.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "round_";
constexpr std::string_view kTemporary = ".tmp";

std::string folder_name(int64_t round) {
  return fmt::format("{}{:06}", kPrefix, round);
}

/// The round of a finished checkpoint's folder name, else empty.
std::optional<int64_t> round_of(fs::path const& folder) {
  std::string const name = folder.filename();
  if (!name.starts_with(kPrefix)) return {};
  int64_t round = 0;
  auto const* const end = name.data() + name.size();
  auto const [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, round);
  if (error != std::errc() || stop != end || folder_name(round) != name) return {};
  return round;
}

/// Finished checkpoints, newest first.
std::vector<std::pair<int64_t, fs::path>> checkpoints_in(fs::path const& dir) {
  std::vector<std::pair<int64_t, fs::path>> found;
  std::error_code missing;
  for (auto const& entry : fs::directory_iterator(dir, missing))
    if (auto const round = round_of(entry.path())) found.emplace_back(*round, entry.path());
  std::sort(found.rbegin(), found.rend());
  return found;
}

void remove_folder(fs::path const& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) log_warning("cannot remove {} ({}). Remove it by hand.", path.string(), error.message());
}

/// What a killed run left: round_NNNNNN.tmp (half written) and round_NNNNNN.old.tmp (half removed).
void remove_leftovers(fs::path const& dir) {
  std::vector<fs::path> leftovers;
  for (auto const& entry : fs::directory_iterator(dir)) {
    std::string const name = entry.path().filename();
    if (name.starts_with(kPrefix) && name.ends_with(kTemporary)) leftovers.push_back(entry.path());
  }
  for (auto const& path : leftovers) remove_folder(path);
}

/// A name that no reader takes for a checkpoint: removal may stop half way.
fs::path retire(fs::path const& folder) {
  fs::path retired = folder;
  retired += ".old";
  retired += kTemporary;
  std::error_code error;
  fs::rename(folder, retired, error);
  FSLLM_CHECK(!error, "cannot remove {} ({}). Check the folder's permissions.", folder.string(),
              error.message());
  return retired;
}

/// Removes the half-written folder unless the save came to its end.
class Unfinished {
 public:
  explicit Unfinished(fs::path path) : path_(std::move(path)) { make_folder(path_); }
  ~Unfinished() {
    if (!finished_) remove_folder(path_);
  }
  Unfinished(Unfinished const&) = delete;
  Unfinished& operator=(Unfinished const&) = delete;
  fs::path const& path() const { return path_; }

  /// Takes the place of what stands at `target`.
  void rename_to(fs::path const& target) {
    sync_path(path_);
    // Where a checkpoint of this round exists, both change names at once; not every file system can.
    bool const exchanged =
        ::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0;
    auto const retired = exchanged ? path_ : fs::exists(target) ? retire(target) : fs::path();
    std::error_code error;
    if (!exchanged) fs::rename(path_, target, error);
    FSLLM_CHECK(!error, "cannot write {} ({}). Check the folder's permissions.", target.string(),
                error.message());
    finished_ = true;
    sync_path(target.parent_path());
    if (!retired.empty()) remove_folder(retired);
  }

 private:
  fs::path path_;
  bool finished_ = false;
};

void write_manifest(fs::path const& folder, int64_t round, std::string const& checksum, uintmax_t bytes) {
  nlohmann::ordered_json const manifest{{"fsllm_format", "checkpoint_manifest"},
                                        {"version", 1},
                                        {"round", round},
                                        {"state.h5", {{"sha256", checksum}, {"bytes", bytes}}}};
  write_file_atomic(folder / "manifest.json", manifest.dump(1) + "\n");
}

std::string manifest_checksum(fs::path const& path) {
  auto const manifest = read_json(path);
  try {
    return manifest.at("state.h5").at("sha256").get<std::string>();
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{} is damaged ({}). Use an older checkpoint.", path.string(), error.what()));
  }
}

/// The checkpoint of `round` is the newest by definition: later rounds stem from before a resume.
void remove_all_but_newest(fs::path const& dir, int64_t round, int keep_last) {
  int kept = 0;
  for (auto const& [found, path] : checkpoints_in(dir))
    if (found > round || ++kept > keep_last) remove_folder(retire(path));
}

}  // namespace

void save_checkpoint(fs::path const& dir, Checkpoint const& checkpoint, int keep_last) {
  FSLLM_CHECK(keep_last >= 1, "checkpoint.keep_last = {} (at least 1). Raise it.", keep_last);
  make_folder(dir);
  remove_leftovers(dir);
  auto const target = dir / folder_name(checkpoint.round);
  Unfinished unfinished(fs::path(target) += kTemporary);
  auto const state = unfinished.path() / "state.h5";
  write_state_file(state, checkpoint);
  sync_path(state);
  write_manifest(unfinished.path(), checkpoint.round, sha256_file(state), fs::file_size(state));
  unfinished.rename_to(target);
  remove_all_but_newest(dir, checkpoint.round, keep_last);
}

Checkpoint load_checkpoint(fs::path const& round_dir) {
  auto const state = round_dir / "state.h5";
  auto const expected = manifest_checksum(round_dir / "manifest.json");
  FSLLM_CHECK(sha256_file(state) == expected,
              "{} is damaged (its SHA-256 is not the manifest's). Use an older checkpoint.", state.string());
  return read_state_file(state);
}

std::optional<Checkpoint> load_newest_checkpoint(fs::path const& dir) {
  for (auto const& [round, path] : checkpoints_in(dir)) {
    try {
      return load_checkpoint(path);
    } catch (Error const& error) {
      log_warning("skipping checkpoint {}: {}", path.string(), error.what());
    }
  }
  return {};
}

}  // namespace fsllm
