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

std::string below(std::string const& name, std::string const& file) {
  return (fs::path(name) / file).string();
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

/// Gives the finished folder its name; a checkpoint of the same round changes places with it and is removed.
void rename_to(fs::path const& made, fs::path const& target) {
  sync_path(made);
  // Both change names at once; not every file system can.
  bool const exchanged = ::renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0;
  std::error_code error;
  auto old = made;
  if (!exchanged && fs::exists(target)) fs::rename(target, old += ".old", error);
  if (!exchanged && !error) fs::rename(made, target, error);
  FSLLM_CHECK(!error, "cannot write {} ({}). Check the folder's permissions.", target.string(),
              error.message());
  sync_path(target.parent_path());
  fs::remove_all(old, error);
}

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
void remove_all_but_newest(OutputFolder& folder, std::string const& name, int64_t round, int keep_last) {
  int kept = 0;
  std::vector<std::string> old;
  for (auto const& [found, path] : checkpoints_in(folder.root() / name))
    if (found > round || ++kept > keep_last) old.push_back(below(name, path.filename().string() + "/"));
  if (!old.empty()) folder.remove(old);
}

}  // namespace

void save_checkpoint(OutputFolder& folder, std::string const& name, Checkpoint const& checkpoint,
                     int keep_last) {
  FSLLM_CHECK(keep_last >= 1, "checkpoint.keep_last = {} (at least 1). Raise it.", keep_last);
  auto const target = below(name, folder_name(checkpoint.round));
  folder.check_free({target});
  auto const made = folder.fresh_folder();
  auto const state = made / "state.h5";
  write_state_file(state, checkpoint);
  fs::permissions(state, fs::perms::owner_read | fs::perms::owner_write);
  sync_path(state);
  write_manifest(made, checkpoint.round, sha256_file(state), fs::file_size(state));
  folder.own({target + "/state.h5", target + "/manifest.json"});
  if (!name.empty()) make_private_folder(folder.root() / name);
  rename_to(made, folder.root() / target);
  remove_all_but_newest(folder, name, checkpoint.round, keep_last);
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

std::vector<int64_t> checkpoint_rounds(fs::path const& dir) {
  std::vector<int64_t> rounds;
  for (auto const& [round, path] : checkpoints_in(dir)) rounds.push_back(round);
  std::reverse(rounds.begin(), rounds.end());
  return rounds;
}

bool holds_checkpoint(fs::path const& folder) {
  return fs::exists(folder) && !fs::is_empty(folder);
}

}  // namespace fsllm
