// SPDX-License-Identifier: Apache-2.0
// What the reader and the writer of shards have in common.
#pragma once
#include "fsllm/io/h5.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {

constexpr char const* kShardFormat = "client_shard";
constexpr char const* kRemakeShard = "Make the shards again: fsllm_shard --cfg FILE --out DIR.";
/// Tokens of a vocabulary up to this are stored in two bytes.
constexpr int64_t kSmallVocabulary = 65536;

void write_shard_attributes(h5::File& file, ClientShard const& shard);

}  // namespace fsllm
