// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/client_data.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

constexpr size_t kComparedAtStart = 1000;

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

int64_t bytes_of(ClientShard const& shard) {
  int64_t bytes = 0;
  for (auto const* split : {&shard.train, &shard.val, &shard.test})
    bytes += std::ssize(split->tokens) * static_cast<int64_t>(sizeof split->tokens[0]) +
             std::ssize(split->target) +
             std::ssize(split->offsets) * static_cast<int64_t>(sizeof split->offsets[0]) +
             std::ssize(split->group) * static_cast<int64_t>(sizeof split->group[0]);
  return bytes;
}

void check_split(TokenSplit const& split, std::string const& where, int64_t vocab_size,
                 int64_t max_positions) {
  for (int32_t const token : split.tokens)
    FSLLM_CHECK(token >= 0 && token < vocab_size,
                "{} holds token id {} (the model has {} tokens). Shard again with this model's tokenizer.",
                where, token, vocab_size);
  for (size_t i = 1; i < split.offsets.size(); ++i) {
    int64_t const length = split.offsets[i] - split.offsets[i - 1];
    FSLLM_CHECK(
        max_positions == 0 || length <= max_positions,
        "{} has a row of {} tokens (the model takes {}). Set llm.tok_len: {}, and make the shards again.",
        where, length, max_positions, max_positions);
  }
}

}  // namespace

ClientData::ClientData(std::vector<ClientSource> sources, std::string tokenizer_sha256, int64_t vocab_size,
                       int64_t max_positions, bool merged, LossKind loss)
    : tokenizer_sha256_(std::move(tokenizer_sha256)),
      vocab_size_(vocab_size),
      max_positions_(max_positions),
      merged_(merged),
      loss_(loss),
      sources_(std::move(sources)) {
  for (size_t i = 0; i < sources_.size(); ++i) source_of_.emplace(sources_[i].summary.client_id, i);
  if (!merged_) {
    for (auto const& each : sources_) clients_.push_back(each.summary.client_id);
    return;
  }
  merged_summary_.client_id = 1;
  for (auto const& each : sources_) {
    FSLLM_CHECK(each.ranks.empty(),
                "federate.method = global (hpc.shard_roots: no rank may read the rows of all clients). "
                "Choose another "
                "method.");
    add(merged_summary_.train, each.summary.train);
    add(merged_summary_.val, each.summary.val);
    add(merged_summary_.test, each.summary.test);
  }
  clients_ = {1};
}

ClientSource const& ClientData::source(int64_t client) const {
  auto const found = source_of_.find(client);
  FSLLM_CHECK(found != source_of_.end(), "client {} has no shard ({} clients have). Choose one of them.",
              client, sources_.size());
  return sources_[found->second];
}

ShardSummary const& ClientData::summary(int64_t client) const {
  return merged_ ? merged_summary_ : source(client).summary;
}

std::vector<int> const& ClientData::ranks_of(int64_t client) const {
  return merged_ ? sources_.front().ranks : source(client).ranks;
}

std::shared_ptr<ClientShard const> ClientData::shard(int64_t client) {
  if (auto const* held = held_.find(client)) return *held;
  auto loaded = std::make_shared<ClientShard>(load(merged_ ? sources_.front() : source(client)));
  if (merged_) {
    for (size_t i = 1; i < sources_.size(); ++i) {
      auto const next = load(sources_[i]);
      append(loaded->train, next.train);
      append(loaded->val, next.val);
      append(loaded->test, next.test);
    }
  }
  held_.put(client, loaded, bytes_of(*loaded));
  return loaded;
}

bool ClientData::compares_when_read() const {
  return sources_.size() > kComparedAtStart;
}

void ClientData::check(int rank, int ranks) const {
  for (size_t i = 0; i < sources_.size(); ++i) {
    auto const& each = sources_[i];
    int const turn = each.ranks.empty() ? static_cast<int>(i % static_cast<size_t>(ranks))
                                        : each.ranks[i % each.ranks.size()];
    if (turn != rank) continue;
    if (!compares_when_read())
      compare(each, load(each));
    else
      FSLLM_CHECK(
          std::filesystem::exists(each.path),
          "{} is missing (index.json lists it). Make the shards again: fsllm_shard --cfg FILE --out DIR.",
          each.path.string());
  }
}

void ClientData::compare(ClientSource const& source, ClientShard const& shard) const {
  FSLLM_CHECK(
      shard.client_id == source.id_in_file && sha256_file(source.path) == source.summary.sha256,
      "{} is not the shard that index.json lists (it holds client {}; its checksum differs). Make the "
      "shards again: fsllm_shard --cfg FILE --out DIR.",
      source.path.string(), shard.client_id);
}

ClientShard ClientData::load(ClientSource const& from) const {
  auto shard = read_shard(from.path, tokenizer_sha256_);
  FSLLM_CHECK(shard.pairs == learns_from_pairs(loss_), "{} holds {} (train.loss = {} learns from {}). {}",
              from.path.string(), shard.pairs ? "pairs of answers" : "rows with one answer", name_of(loss_),
              shard.pairs ? "rows with one answer" : "pairs",
              shard.pairs ? "Set train.loss: dpo or reward, or shard again with train.loss: causal_lm."
                          : "Shard again with that train.loss, from rows of prompt, chosen and rejected.");
  for (auto const* split : {&shard.train, &shard.val, &shard.test})
    check_split(*split, from.path.string(), vocab_size_, max_positions_);
  if (compares_when_read()) compare(from, shard);
  return shard;
}

}  // namespace fsllm
