// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/io/shard.hpp"

namespace fsllm {

/// The clients' shards of a run: counts of all of them from the index, tokens of those that this rank trains
/// or evaluates, read when first asked for and kept.
class ClientData {
 public:
  /// `tokenizer_sha256` must match the shards' ("" where the model has none); token ids must be below
  /// `vocab_size`, rows no longer than `max_positions` (0: any length). `merged`: one client that holds the
  /// rows of all.
  ClientData(std::filesystem::path dir, std::string tokenizer_sha256, int64_t vocab_size,
             int64_t max_positions, bool merged);

  std::vector<int64_t> const& clients() const { return clients_; }  ///< ids, ascending
  ShardSummary const& summary(int64_t client) const;
  ClientShard const& shard(int64_t client);
  /// Reads every `parts`-th shard from `part` on and compares it with the index; damage is an Error.
  void check(int64_t part, int64_t parts) const;
  ShardIndex const& index() const { return index_; }

 private:
  ClientShard load(int64_t client) const;
  std::filesystem::path dir_;
  std::string tokenizer_sha256_;
  int64_t vocab_size_, max_positions_;
  bool merged_;
  ShardIndex index_;
  ShardSummary merged_summary_;
  std::vector<int64_t> clients_;
  std::map<int64_t, std::unique_ptr<ClientShard>> cache_;
};

}  // namespace fsllm
