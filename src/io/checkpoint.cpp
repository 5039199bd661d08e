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

std::string part_name(int part) {
  return part == 0 ? "state.h5" : fmt::format("state_{}.h5", part);
}

void write_manifest(fs::path const& folder, int64_t round, std::vector<CheckpointPart> const& parts) {
  nlohmann::ordered_json manifest{{"fsllm_format", "checkpoint_manifest"}, {"version", 1}, {"round", round}};
  for (size_t part = 0; part < parts.size(); ++part)
    manifest[part_name(static_cast<int>(part))] = {{"sha256", parts[part].sha256},
                                                   {"bytes", parts[part].bytes}};
  write_file_atomic(folder / "manifest.json", manifest.dump(1) + "\n");
}

/// The checksums that the manifest gives for the parts.
std::vector<std::string> manifest_checksums(fs::path const& path) {
  auto const manifest = read_json(path);
  std::vector<std::string> checksums;
  try {
    do
      checksums.push_back(
          manifest.at(part_name(static_cast<int>(checksums.size()))).at("sha256").get<std::string>());
    while (manifest.contains(part_name(static_cast<int>(checksums.size()))));
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{} is damaged ({}). Use an older checkpoint.", path.string(), error.what()));
  }
  return checksums;
}

void check_part(fs::path const& round_dir, int part, std::string const& expected) {
  auto const state = round_dir / part_name(part);
  FSLLM_CHECK(sha256_file(state) == expected,
              "{} is damaged (its SHA-256 is not the manifest's). Use an older checkpoint.", state.string());
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

CheckpointPart write_checkpoint_part(fs::path const& made, int part, Checkpoint const& checkpoint) {
  auto const state = made / part_name(part);
  write_state_file(state, checkpoint);
  fs::permissions(state, fs::perms::owner_read | fs::perms::owner_write);
  sync_path(state);
  return {sha256_file(state), fs::file_size(state)};
}

void publish_checkpoint(OutputFolder& folder, std::string const& name, fs::path const& made, int64_t round,
                        std::vector<CheckpointPart> const& parts, int keep_last) {
  auto const target = below(name, folder_name(round));
  write_manifest(made, round, parts);
  std::vector<std::string> files{target + "/manifest.json"};
  for (size_t part = 0; part < parts.size(); ++part)
    files.push_back(target + "/" + part_name(static_cast<int>(part)));
  folder.own(files);
  if (!name.empty()) make_private_folder(folder.root() / name);
  rename_to(made, folder.root() / target);
  remove_all_but_newest(folder, name, round, keep_last);
}

void save_checkpoint(OutputFolder& folder, std::string const& name, Checkpoint const& checkpoint,
                     int keep_last) {
  FSLLM_CHECK(keep_last >= 1, "checkpoint.keep_last = {} (at least 1). Raise it.", keep_last);
  folder.check_free({below(name, folder_name(checkpoint.round))});
  auto const made = folder.fresh_folder();
  auto const part = write_checkpoint_part(made, 0, checkpoint);
  publish_checkpoint(folder, name, made, checkpoint.round, {part}, keep_last);
}

Checkpoint load_checkpoint(fs::path const& round_dir, int part) {
  auto const expected = manifest_checksums(round_dir / "manifest.json");
  check_part(round_dir, part, expected.at(static_cast<size_t>(part)));
  return read_state_file(round_dir / part_name(part));
}

std::optional<FoundCheckpoint> find_newest_checkpoint(fs::path const& dir) {
  for (auto const& [round, path] : checkpoints_in(dir)) {
    try {
      auto const expected = manifest_checksums(path / "manifest.json");
      for (size_t part = 1; part < expected.size(); ++part)
        check_part(path, static_cast<int>(part), expected[part]);
      return FoundCheckpoint{path, static_cast<int>(expected.size()), load_checkpoint(path)};
    } catch (Error const& error) {
      log_warning("skipping checkpoint {}: {}", path.string(), error.what());
    }
  }
  return {};
}

std::optional<Checkpoint> load_newest_checkpoint(fs::path const& dir) {
  auto found = find_newest_checkpoint(dir);
  return found ? std::optional(std::move(found->first)) : std::nullopt;
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
