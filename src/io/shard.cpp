// SPDX-License-Identifier: Apache-2.0
#include "fsllm/io/shard.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/h5.hpp"
#include "fsllm/io/jsonl.hpp"
#include "shard_format.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Behind its first token.
bool has_target(TokenSplit const& split, int64_t row) {
  auto const begin = split.offsets[static_cast<size_t>(row)],
             end = split.offsets[static_cast<size_t>(row) + 1];
  return end > begin && std::find(split.target.begin() + begin + 1, split.target.begin() + end, 1) !=
                            split.target.begin() + end;
}

/// Refuses a split whose arrays do not fit together; `where` is "FILE (split train)".
void check_split(TokenSplit const& split, ClientShard const& shard, std::string const& where) {
  auto const total = static_cast<int64_t>(split.tokens.size());
  FSLLM_CHECK(static_cast<int64_t>(split.target.size()) == total, "{}: {} targets for {} tokens. {}", where,
              split.target.size(), total, kRemakeShard);
  FSLLM_CHECK(!split.offsets.empty() && split.offsets.front() == 0 && split.offsets.back() == total &&
                  std::is_sorted(split.offsets.begin(), split.offsets.end()),
              "{}: offsets do not rise from 0 to the number of tokens, {}. {}", where, total, kRemakeShard);
  FSLLM_CHECK(static_cast<int64_t>(split.group.size()) == split.rows(),
              "{}: {} group numbers for {} rows. {}", where, split.group.size(), split.rows(), kRemakeShard);
  FSLLM_CHECK(split.rows() % split.rows_a_sample() == 0, "{}: {} rows (an odd number is no pairs). {}", where,
              split.rows(), kRemakeShard);
  for (int64_t row = 0; split.pairs && row < split.rows(); ++row)
    FSLLM_CHECK(has_target(split, row),
                "{}: row {} has no scored token (both answers of a pair need one). {}", where, row,
                kRemakeShard);
  for (int32_t const token : split.tokens)
    FSLLM_CHECK(token >= 0 && token < shard.vocab_size, "{}: token {} (the vocabulary has {}). {}", where,
                token, shard.vocab_size, kRemakeShard);
  for (uint8_t const target : split.target)
    FSLLM_CHECK(target <= 1, "{}: target {} (0 or 1 expected). {}", where, target, kRemakeShard);
  auto const groups = static_cast<int32_t>(shard.group_names.size());
  for (int32_t const group : split.group)
    FSLLM_CHECK(group >= -1 && group < groups, "{}: group {} ({} groups are named). {}", where, group, groups,
                kRemakeShard);
}

std::vector<int32_t> read_tokens(h5::File const& file, std::string const& dataset, std::string const& where) {
  auto const type = file.type_of(dataset);
  if (type != "uint32" && type.find("int") != type.npos) return file.integers<int32_t>(dataset);
  auto const tokens = file.read<uint32_t>(dataset);
  for (uint32_t const token : tokens)
    FSLLM_CHECK(token <= std::numeric_limits<int32_t>::max(), "{}: token {} (above 2^31). {}", where, token,
                kRemakeShard);
  return {tokens.begin(), tokens.end()};
}

TokenSplit read_split(h5::File const& file, std::string const& name, std::string const& where, bool pairs) {
  TokenSplit split;
  split.pairs = pairs;
  split.tokens = read_tokens(file, name + "/tokens", where);
  split.target = file.integers<uint8_t>(name + "/target");
  split.offsets = file.integers<int64_t>(name + "/offsets");
  split.group = file.integers<int32_t>(name + "/group");
  return split;
}

void read_attributes(h5::File const& file, ClientShard& shard) {
  shard.client_id = file.int_attribute("/", "client_id");
  shard.dataset = file.text_attribute("/", "dataset");
  shard.splitter = file.text_attribute("/", "splitter");
  shard.seed = file.int_attribute("/", "seed");
  shard.tokenizer_sha256 = file.text_attribute("/", "tokenizer_sha256");
  shard.prompt_template = file.text_attribute("/", "prompt_template");
  shard.tok_len = file.int_attribute("/", "tok_len");
  shard.vocab_size = file.int_attribute("/", "vocab_size");
  shard.pairs = file.int_attribute("/", "version") == kPairShardVersion;
}

void check_format(h5::File const& file, std::string const& path) {
  FSLLM_CHECK(
      file.has_attribute("/", "fsllm_format") && file.text_attribute("/", "fsllm_format") == kShardFormat,
      "{} is not a client shard (its attribute fsllm_format is not '{}'). Give the folder that "
      "fsllm_shard wrote.",
      path, kShardFormat);
  int64_t const version = file.int_attribute("/", "version");
  FSLLM_CHECK(version == kShardVersion || version == kPairShardVersion,
              "{} has shard version {} (this program reads versions {} and {}). {}", path, version,
              kShardVersion, kPairShardVersion, kRemakeShard);
}

std::vector<std::string> read_group_names(h5::File const& file, std::string const& path) {
  auto const names = parse_json(file.read_text("/group_names"), path + "/group_names");
  FSLLM_CHECK(names.is_array() &&
                  std::all_of(names.begin(), names.end(), [](auto const& n) { return n.is_string(); }),
              "{}: /group_names is not a JSON array of texts. {}", path, kRemakeShard);
  return names.get<std::vector<std::string>>();
}

void check_splits(ClientShard const& shard, std::string const& path) {
  check_split(shard.train, shard, path + " (split train)");
  check_split(shard.val, shard, path + " (split val)");
  check_split(shard.test, shard, path + " (split test)");
}

SplitSummary summarize_split(TokenSplit const& split, std::vector<std::string> const& group_names) {
  SplitSummary summary;
  summary.rows = split.samples();
  summary.tokens = static_cast<int64_t>(split.tokens.size());
  summary.targets = std::count(split.target.begin(), split.target.end(), 1);
  for (int64_t row = 0; row < split.rows(); row += split.rows_a_sample())
    if (auto const group = split.group[static_cast<size_t>(row)]; group >= 0)
      ++summary.groups[group_names[static_cast<size_t>(group)]];
  return summary;
}

}  // namespace

void TokenSplit::append(std::vector<int32_t> const& ids, std::vector<uint8_t> const& is_target,
                        int32_t group_index) {
  FSLLM_ASSERT(ids.size() == is_target.size());
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  target.insert(target.end(), is_target.begin(), is_target.end());
  offsets.push_back(static_cast<int64_t>(tokens.size()));
  group.push_back(group_index);
}

fs::path shard_path(fs::path const& dir, int64_t client_id) {
  return dir / (client_id == 0 ? std::string("server.h5") : fmt::format("client_{:05}.h5", client_id));
}

void write_shard_attributes(h5::File& file, ClientShard const& shard) {
  file.set_attribute("/", "fsllm_format", std::string(kShardFormat));
  file.set_attribute("/", "version", int64_t{shard.pairs ? kPairShardVersion : kShardVersion});
  file.set_attribute("/", "client_id", shard.client_id);
  file.set_attribute("/", "dataset", shard.dataset);
  file.set_attribute("/", "splitter", shard.splitter);
  file.set_attribute("/", "seed", shard.seed);
  file.set_attribute("/", "tokenizer_sha256", shard.tokenizer_sha256);
  file.set_attribute("/", "prompt_template", shard.prompt_template);
  file.set_attribute("/", "tok_len", shard.tok_len);
  file.set_attribute("/", "vocab_size", shard.vocab_size);
}

ClientShard read_shard(fs::path const& path, std::string const& tokenizer_sha256) {
  h5::File const file(path, h5::Mode::read);
  check_format(file, path.string());
  ClientShard shard;
  read_attributes(file, shard);
  FSLLM_CHECK(tokenizer_sha256.empty() || tokenizer_sha256 == shard.tokenizer_sha256,
              "{} was made with another tokenizer (SHA-256 {}…, the model's is {}…). {}", path.string(),
              shard.tokenizer_sha256.substr(0, 12), tokenizer_sha256.substr(0, 12), kRemakeShard);
  shard.group_names = read_group_names(file, path.string());
  shard.train = read_split(file, "/train", path.string(), shard.pairs);
  shard.val = read_split(file, "/val", path.string(), shard.pairs);
  shard.test = read_split(file, "/test", path.string(), shard.pairs);
  check_splits(shard, path.string());
  return shard;
}

ShardSummary summarize(ClientShard const& shard, std::string const& sha256) {
  return {shard.client_id, summarize_split(shard.train, shard.group_names),
          summarize_split(shard.val, shard.group_names), summarize_split(shard.test, shard.group_names),
          sha256};
}

}  // namespace fsllm
