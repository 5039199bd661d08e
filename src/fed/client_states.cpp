// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/client_states.hpp"

#include <algorithm>
#include <cstdio>

#include "fsllm/core/error.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm {
namespace {

constexpr std::string_view kOptimizer = "optimizer.";

/// As one map, in host memory; and back.
TensorMap joined(ClientState const& state) {
  auto all = moved(state.own, at::kCPU);
  for (auto const& [name, tensor] : moved(state.optimizer, at::kCPU))
    all.emplace(std::string(kOptimizer) + name, tensor);
  return all;
}

ClientState parted(TensorMap const& all) {
  ClientState state;
  for (auto const& [name, tensor] : all)
    if (name.starts_with(kOptimizer))
      state.optimizer.emplace(name.substr(kOptimizer.size()), tensor);
    else
      state.own.emplace(name, tensor);
  return state;
}

}  // namespace

std::string state_file_name(int64_t client, int64_t round, int rank) {
  auto const part = rank > 0 ? fmt::format(".rank_{}", rank) : std::string();
  return fmt::format("clients/client_{:05d}.round_{:06d}{}.safetensors", client, round, part);
}

std::map<int64_t, std::set<int64_t>> state_files_in(std::filesystem::path const& run_directory) {
  std::map<int64_t, std::set<int64_t>> found;
  std::error_code missing;
  for (auto const& entry : std::filesystem::directory_iterator(run_directory / "clients", missing)) {
    long long client = 0, round = 0;
    auto const name = "clients/" + entry.path().filename().string();
    if (std::sscanf(name.c_str(), "clients/client_%lld.round_%lld", &client, &round) == 2 &&
        state_file_name(client, round) == name)
      found[client].insert(round);
  }
  return found;
}

std::optional<ClientState> ClientStates::find(int64_t client) {
  auto const known = files_.find(client);
  if (known == files_.end()) return {};
  if (auto const* held = held_.find(client)) return *held;
  auto const& file = known->second.back();
  auto const path = root_ / state_file_name(client, file.round, rank_);
  FSLLM_CHECK(checksum64_file(path) == file.checksum,
              "{} is not the state that the checkpoint lists (its checksum differs). Restore it, or remove "
              "the newest "
              "folder of checkpoints/ to continue from the one before.",
              path.string());
  auto const all = clone(SafetensorsReader(path).tensors());
  auto state = parted(all);
  held_.put(client, state, num_bytes(all));
  return state;
}

void ClientStates::put(int64_t client, int64_t round, ClientState const& state) {
  auto const path = root_ / state_file_name(client, round, rank_);
  auto const here = joined(state);
  write_safetensors(path, here, {{"format", "pt"}}, OutputFolder::scratch_of(root_), FileAccess::owner_only);
  auto& files = files_[client];
  std::erase_if(files, [&](auto const& file) { return file.round >= round; });
  files.push_back({client, round, checksum64_file(path)});
  if (files.size() > 2) files.erase(files.begin());
  held_.put(client, parted(here), num_bytes(here));
}

std::vector<ClientStateFile> ClientStates::files(int64_t round) const {
  std::vector<ClientStateFile> newest;
  for (auto const& [client, files] : files_) {
    auto const last =
        std::find_if(files.rbegin(), files.rend(), [&](auto const& file) { return file.round <= round; });
    if (last != files.rend()) newest.push_back(*last);
  }
  return newest;
}

void ClientStates::restore(std::vector<ClientStateFile> const& files) {
  files_.clear();
  held_.clear();
  for (auto const& file : files) files_[file.client] = {file};
}

}  // namespace fsllm
