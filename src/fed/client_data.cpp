// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/client_data.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

void add(SplitSummary& a, SplitSummary const& b) {
  a.rows += b.rows;
  a.tokens += b.tokens;
  a.targets += b.targets;
  for (auto const& [group, rows] : b.groups) a.groups[group] += rows;
}

void append(TokenSplit& a, TokenSplit const& b) {
  int64_t const base = a.offsets.back();
  a.tokens.insert(a.tokens.end(), b.tokens.begin(), b.tokens.end());
  a.target.insert(a.target.end(), b.target.begin(), b.target.end());
  a.group.insert(a.group.end(), b.group.begin(), b.group.end());
  for (size_t i = 1; i < b.offsets.size(); ++i) a.offsets.push_back(base + b.offsets[i]);
}

void check_split(TokenSplit const& split, std::string const& where, int64_t vocab_size,
                 int64_t max_positions) {
  for (int32_t const token : split.tokens)
    FSLLM_CHECK(token >= 0 && token < vocab_size,
                "{} holds token id {} (the model has {} tokens). Shard again with this model's tokenizer.",
                where, token, vocab_size);
  for (size_t i = 1; i < split.offsets.size(); ++i) {
    int64_t const length = split.offsets[i] - split.offsets[i - 1];
    FSLLM_CHECK(max_positions == 0 || length <= max_positions,
                "{} has a row of {} tokens (the model takes {}). Shard again with llm.tok_len {}.", where,
                length, max_positions, max_positions);
  }
}

}  // namespace

ClientData::ClientData(std::filesystem::path dir, std::string tokenizer_sha256, int64_t vocab_size,
                       int64_t max_positions, bool merged)
    : dir_(std::move(dir)),
      tokenizer_sha256_(std::move(tokenizer_sha256)),
      vocab_size_(vocab_size),
      max_positions_(max_positions),
      merged_(merged),
      index_(read_shard_index(dir_)) {
  std::erase_if(index_.clients,
                [](auto const& client) { return client.client_id == 0; });  // the server's rows
  FSLLM_CHECK(!index_.clients.empty(), "{} lists no client (the index is empty). Shard again.",
              (dir_ / "index.json").string());
  if (merged_) {
    merged_summary_.client_id = 1;
    for (auto const& client : index_.clients) {
      add(merged_summary_.train, client.train);
      add(merged_summary_.val, client.val);
      add(merged_summary_.test, client.test);
    }
    clients_ = {1};
    return;
  }
  for (auto const& client : index_.clients) clients_.push_back(client.client_id);
}

ShardSummary const& ClientData::summary(int64_t client) const {
  if (merged_) return merged_summary_;
  auto const found = std::find_if(index_.clients.begin(), index_.clients.end(),
                                  [&](auto const& c) { return c.client_id == client; });
  FSLLM_CHECK(found != index_.clients.end(),
              "client {} has no shard in {} ({} clients there). Choose one of them.", client, dir_.string(),
              index_.clients.size());
  return *found;
}

ClientShard const& ClientData::shard(int64_t client) {
  auto& slot = cache_[client];
  if (slot != nullptr) return *slot;
  auto loaded = std::make_unique<ClientShard>(load(merged_ ? index_.clients.front().client_id : client));
  if (merged_) {
    for (size_t i = 1; i < index_.clients.size(); ++i) {
      auto const next = load(index_.clients[i].client_id);
      append(loaded->train, next.train);
      append(loaded->val, next.val);
      append(loaded->test, next.test);
    }
  }
  slot = std::move(loaded);
  return *slot;
}

void ClientData::check(int64_t part, int64_t parts) const {
  for (size_t i = static_cast<size_t>(part); i < index_.clients.size(); i += static_cast<size_t>(parts)) {
    auto const& client = index_.clients[i];
    auto const path = shard_path(dir_, client.client_id);
    auto const shard = load(client.client_id);
    FSLLM_CHECK(
        shard.client_id == client.client_id && sha256_file(path) == client.sha256,
        "{} is not the shard that index.json lists (it holds client {}; its checksum differs). Make the "
        "shards again: fsllm_shard --cfg FILE --out DIR.",
        path.string(), shard.client_id);
  }
}

ClientShard ClientData::load(int64_t client) const {
  auto const path = shard_path(dir_, client);
  auto shard = read_shard(path, tokenizer_sha256_);
  for (auto const* split : {&shard.train, &shard.val, &shard.test})
    check_split(*split, path.string(), vocab_size_, max_positions_);
  return shard;
}

}  // namespace fsllm
