// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/io/shard.hpp"
#include "fsllm/text/data_config.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

struct ShardJob {
  DataConfig data;
  int64_t client_num = 0;  ///< 0: one client a category or field value where the splitter knows them
  uint64_t seed = 0;
  Tokenizer const* tokenizer = nullptr;  ///< null: token rows only
  int64_t vocab_size = 0;
};

/// Collective: writes the shards of all clients, the server's and index.json into `out`; rank r makes those
/// of clients r + 1, r + 1 + size, ... The bytes do not depend on the number of ranks.
ShardIndex make_shards(ShardJob const& job, std::filesystem::path const& out, Communicator const& comm);

}  // namespace fsllm
