// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/data/loss_kind.hpp"
#include "fsllm/fed/recently_used.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {

/// One client of a run.
struct ClientSource {
  ShardSummary summary;        ///< with the id that the client has in this run
  int64_t id_in_file = 0;      ///< the id that its shard says
  std::filesystem::path path;  ///< of its shard; empty where this rank may not open it
  std::vector<int> ranks;      ///< that may open it; empty: all
};

/// All clients of one folder, which every rank may read.
std::vector<ClientSource> sources_in(std::filesystem::path const& dir);
/// The folders of `hpc.shard_roots` that this rank may open.
std::vector<std::string> own_roots(std::vector<std::string> const& roots, Communicator const& comm);
/// Collective: the clients of folders that only some ranks see (`hpc.shard_roots`). Root i belongs to rank i
/// modulo the number of ranks; a single root is looked up by every rank, on its own disk. Clients keep their
/// ids if these differ, else they are numbered in the order of ranks. Only counts and checksums travel.
std::vector<ClientSource> sources_at(std::vector<std::string> const& roots, Communicator const& comm);

/// The clients' shards of a run: counts of all of them from the index, tokens of those that this rank trains
/// or evaluates.
class ClientData {
 public:
  /// `tokenizer_sha256` must match the shards' ("" where the model has none); token ids must be below
  /// `vocab_size`, rows no longer than `max_positions` (0: any length). `merged`: one client that holds the
  /// rows of all. Shards hold pairs where `loss` learns from them.
  ClientData(std::vector<ClientSource> sources, std::string tokenizer_sha256, int64_t vocab_size,
             int64_t max_positions, bool merged, LossKind loss = LossKind::causal_lm);

  std::vector<int64_t> const& clients() const { return clients_; }  ///< ids, ascending
  ShardSummary const& summary(int64_t client) const;
  /// Read when it is asked for; the most recently used ones stay in memory.
  std::shared_ptr<ClientShard const> shard(int64_t client);
  /// Ranks that may open the client's shard; empty: all.
  std::vector<int> const& ranks_of(int64_t client) const;
  /// Reads this rank's part of the shards and compares them with their index; damage is an Error. Of more
  /// than 1000 shards only those that are missing are found here; each is compared whenever it is read.
  void check(int rank, int ranks) const;
  int64_t num_shards() const { return static_cast<int64_t>(sources_.size()); }

 private:
  ClientSource const& source(int64_t client) const;
  ClientShard load(ClientSource const& source) const;
  bool compares_when_read() const;
  void compare(ClientSource const& source, ClientShard const& shard) const;
  std::string tokenizer_sha256_;
  int64_t vocab_size_, max_positions_;
  bool merged_;
  LossKind loss_;
  std::vector<ClientSource> sources_;
  ShardSummary merged_summary_;
  std::vector<int64_t> clients_;
  std::map<int64_t, size_t> source_of_;  ///< client id → place in sources_
  RecentlyUsed<std::shared_ptr<ClientShard const>> held_{int64_t{64} << 20};
};

}  // namespace fsllm
