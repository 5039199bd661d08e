// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "fsllm/core/tensor_map.hpp"
#include "fsllm/fed/recently_used.hpp"

namespace fsllm {

/// What outlives a client's turn.
struct ClientState {
  TensorMap own;        ///< the algorithm's
  TensorMap optimizer;  ///< with federate.keep_optimizer
};

/// The file of a client's own state as it was after `round` rounds, with the XXH64 of its bytes.
struct ClientStateFile {
  int64_t client = 0, round = 0;
  uint64_t checksum = 0;
};

/// Below the run directory: "clients/client_00017.round_000003.safetensors". Where several ranks train a
/// client, each of them (`rank` of the group) has one:
/// "clients/client_00017.round_000003.rank_1.safetensors".
std::string state_file_name(int64_t client, int64_t round, int rank = 0);

/// The rounds of each client's files (of rank 0) below the run directory.
std::map<int64_t, std::set<int64_t>> state_files_in(std::filesystem::path const& run_directory);

/// The states of the clients that belong to this rank: each a file that is written after the client's turn
/// and stays until a checkpoint makes it superfluous. The most recently used ones stay in memory too. States
/// never travel between ranks.
class ClientStates {
 public:
  /// `rank`: of state_file_name.
  explicit ClientStates(std::filesystem::path run_directory, int rank = 0)
      : root_(std::move(run_directory)), rank_(rank) {}

  /// The newest state of a client, in host memory and not to be written to; empty before its first turn. A
  /// file that is gone or damaged is an Error.
  std::optional<ClientState> find(int64_t client);
  /// Writes the state after `round` rounds, whole and flushed; the file must be owned by the run's
  /// OutputFolder.
  void put(int64_t client, int64_t round, ClientState const& state);
  /// Of each client that has one, the newest file after at most `round` rounds.
  std::vector<ClientStateFile> files(int64_t round) const;
  /// Goes on with these files, and forgets all others.
  void restore(std::vector<ClientStateFile> const& files);

 private:
  std::filesystem::path root_;
  int rank_;
  std::map<int64_t, std::vector<ClientStateFile>> files_;  ///< the last two, in the order of rounds
  RecentlyUsed<ClientState> held_{int64_t{64} << 20};
};

}  // namespace fsllm
