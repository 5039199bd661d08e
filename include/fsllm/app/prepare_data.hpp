// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/data/prepare.hpp"
#include "fsllm/io/output_folder.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {

struct ShardJob {
  PrepareJob rows;
  int64_t client_num = 0;   ///< 0: one client a category or field value where the splitter knows them
  std::string description;  ///< the resolved configuration: another one never goes on with the shards of this
};

/// Where shards go: the subfolder `name` ("" for the folder itself) of an output folder, which rank 0 holds.
struct ShardPlace {
  std::filesystem::path root;
  std::string name;
  OutputFolder* folder = nullptr;  ///< rank 0 only
  std::filesystem::path path() const { return name.empty() ? root : root / name; }
};

/// Collective: writes the shards of all clients, the server's, index.json and the report (split_report.hpp),
/// divided over the ranks by the length of their text. The bytes do not depend on the number of ranks or
/// threads. What an interrupted call of the same job and data finished is taken as it is; shards of another
/// job that the program wrote there are removed.
ShardIndex make_shards(ShardJob const& job, ShardPlace const& place, Communicator const& comm);

/// Most rows cut to llm.tok_len: a warning.
void warn_of_truncation(PrepareCounts const& counts, int64_t tok_len);

/// Threads for this rank's share of the node's cores; OMP_NUM_THREADS goes before.
int preparing_threads();

}  // namespace fsllm
