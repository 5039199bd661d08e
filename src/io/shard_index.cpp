// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;

constexpr char const* kIndexFormat = "shard_index";

Json to_json(SplitSummary const& split) {
  return {
      {"rows", split.rows}, {"tokens", split.tokens}, {"targets", split.targets}, {"groups", split.groups}};
}

Json to_json(ShardSummary const& client) {
  return {{"client_id", client.client_id}, {"file", shard_path("", client.client_id).string()},
          {"sha256", client.sha256},       {"train", to_json(client.train)},
          {"val", to_json(client.val)},    {"test", to_json(client.test)}};
}

SplitSummary split_from(nlohmann::json const& json) {
  SplitSummary split;
  json.at("rows").get_to(split.rows);
  json.at("tokens").get_to(split.tokens);
  json.at("targets").get_to(split.targets);
  json.at("groups").get_to(split.groups);
  return split;
}

ShardSummary client_from(nlohmann::json const& json) {
  ShardSummary client;
  json.at("client_id").get_to(client.client_id);
  json.at("sha256").get_to(client.sha256);
  client.train = split_from(json.at("train"));
  client.val = split_from(json.at("val"));
  client.test = split_from(json.at("test"));
  return client;
}

ShardIndex index_from(nlohmann::json const& json, std::string const& path) {
  FSLLM_CHECK(
      json.is_object() && json.value("fsllm_format", "") == kIndexFormat &&
          json.value("version", 0) == kShardVersion,
      "{} is not a shard index of version {} (fsllm_format or version differs). Make the shards again: "
      "fsllm_shard --cfg FILE --out DIR.",
      path, kShardVersion);
  ShardIndex index;
  json.at("dataset").get_to(index.dataset);
  json.at("splitter").get_to(index.splitter);
  json.at("tokenizer_sha256").get_to(index.tokenizer_sha256);
  json.at("prompt_template").get_to(index.prompt_template);
  if (auto const prompt = json.find("prompt"); prompt != json.end()) index.prompt_json = prompt->dump();
  json.at("seed").get_to(index.seed);
  json.at("tok_len").get_to(index.tok_len);
  index.pairs = json.value("pairs", false);
  for (auto const& client : json.at("clients")) index.clients.push_back(client_from(client));
  return index;
}

/// Orders by id and refuses two clients of one id.
void order(std::vector<ShardSummary>& clients, std::string const& path) {
  std::sort(clients.begin(), clients.end(),
            [](auto const& a, auto const& b) { return a.client_id < b.client_id; });
  for (size_t i = 1; i < clients.size(); ++i)
    FSLLM_CHECK(clients[i].client_id != clients[i - 1].client_id,
                "{}: client {} stands there twice. Make the shards again: fsllm_shard --cfg FILE --out DIR.",
                path, clients[i].client_id);
}

}  // namespace

std::string to_text(std::vector<ShardSummary> const& summaries) {
  auto list = Json::array();
  for (auto const& summary : summaries) list.push_back(to_json(summary));
  return list.dump();
}

std::vector<ShardSummary> summaries_from_text(std::string const& text) {
  std::vector<ShardSummary> summaries;
  for (auto const& json : nlohmann::json::parse(text)) summaries.push_back(client_from(json));
  return summaries;
}

void write_shard_index(std::filesystem::path const& dir, ShardIndex const& index,
                       std::filesystem::path const& scratch) {
  auto const path = dir / "index.json";
  auto ordered = index.clients;
  order(ordered, path.string());
  Json json{{"fsllm_format", kIndexFormat},
            {"version", kShardVersion},
            {"dataset", index.dataset},
            {"splitter", index.splitter},
            {"tokenizer_sha256", index.tokenizer_sha256},
            {"prompt_template", index.prompt_template},
            {"seed", index.seed},
            {"tok_len", index.tok_len},
            {"clients", Json::array()}};
  if (index.pairs) json["pairs"] = true;
  if (!index.prompt_json.empty()) json["prompt"] = Json::parse(index.prompt_json);
  for (auto const& client : ordered) json["clients"].push_back(to_json(client));
  write_file_atomic(path, json.dump(1) + "\n", scratch, FileAccess::owner_only);
}

ShardIndex read_shard_index(std::filesystem::path const& dir) {
  auto const path = (dir / "index.json").string();
  FSLLM_CHECK(std::filesystem::exists(path),
              "{} holds no index.json (no folder of shards). Give the folder that fsllm_shard wrote.",
              dir.string());
  auto const json = read_json(path);
  try {
    ShardIndex index = index_from(json, path);
    order(index.clients, path);
    return index;
  } catch (nlohmann::json::exception const& error) {
    fail(fmt::format("{} is damaged ({}). Make the shards again: fsllm_shard --cfg FILE --out DIR.", path,
                     error.what()));
  }
}

}  // namespace fsllm
