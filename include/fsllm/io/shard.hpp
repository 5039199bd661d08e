// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace fsllm {

/// Tokenised samples of one split (train, val or test) of one client, laid end to end. A sample is a row, or
/// a pair of rows, the chosen answer's before the rejected one's.
struct TokenSplit {
  std::vector<int32_t> tokens;  ///< [total]
  std::vector<uint8_t> target;  ///< [total], 1 where this token is scored (predicted from those before it)
  std::vector<int64_t> offsets{0};  ///< [rows + 1]
  std::vector<int32_t> group;       ///< [rows], index into ClientShard::group_names, -1 for none
  bool pairs = false;
  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  int64_t rows_a_sample() const { return pairs ? 2 : 1; }
  int64_t samples() const { return rows() / rows_a_sample(); }
  void append(std::vector<int32_t> const& ids, std::vector<uint8_t> const& is_target, int32_t group_index);
};

/// One client's data: the unit that a rank reads. Schema: docs/FORMATS.md.
struct ClientShard {
  int64_t client_id = 0;  ///< from 1; 0 is the server's held-out data
  std::string dataset, splitter, tokenizer_sha256, prompt_template;
  int64_t seed = 0, tok_len = 0, vocab_size = 0;
  std::vector<std::string> group_names;
  TokenSplit train, val, test;
  bool pairs = false;  ///< of all three
};

constexpr int kShardVersion = 1;
/// Of shards of pairs, so that what knows none does not take both answers for rows to be learnt.
constexpr int kPairShardVersion = 2;

/// DIR/client_00017.h5, or DIR/server.h5 for id 0.
std::filesystem::path shard_path(std::filesystem::path const& dir, int64_t client_id);

/// Atomic (temporary name, rename). Tokens are stored as uint16 where vocab_size allows, else uint32.
/// Returns the file's SHA-256; the same shard gives the same bytes. A shard that read_shard would refuse is
/// an Error.
std::string write_shard(std::filesystem::path const& path, ClientShard const& shard);

/// Checks format, version, offsets, lengths, token range; `tokenizer_sha256` (if not empty) must match, else
/// the error gives the command that remakes the shard.
ClientShard read_shard(std::filesystem::path const& path, std::string const& tokenizer_sha256 = "");

/// Per-split summary without the tokens: what the index holds and fsllm_inspect prints.
struct SplitSummary {
  int64_t rows = 0, tokens = 0, targets = 0;  ///< rows: samples, so pairs count once
  std::map<std::string, int64_t> groups;      ///< of the samples
};
struct ShardSummary {
  int64_t client_id = 0;
  SplitSummary train, val, test;
  std::string sha256;  ///< of the shard file
};
/// `sha256` is what write_shard returned, or sha256_file of the shard's file.
ShardSummary summarize(ClientShard const& shard, std::string const& sha256);

/// Summaries as text, for other ranks.
std::string to_text(std::vector<ShardSummary> const& summaries);
std::vector<ShardSummary> summaries_from_text(std::string const& text);

/// DIR/index.json: all clients (ordered by id), counts and checksums.
struct ShardIndex {
  std::string dataset, splitter, tokenizer_sha256, prompt_template;
  int64_t seed = 0, tok_len = 0;
  std::vector<ShardSummary> clients;  ///< 0, the server's data, comes first where there is any
  std::string prompt_json = {};       ///< the template itself; "" where the shards do not say
  bool pairs = false;
};
/// Atomic (`scratch`: see AtomicFile); orders the clients by id. Two of one id are an Error.
void write_shard_index(std::filesystem::path const& dir, ShardIndex const& index,
                       std::filesystem::path const& scratch = {});
ShardIndex read_shard_index(std::filesystem::path const& dir);

}  // namespace fsllm
