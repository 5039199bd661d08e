// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/prepare_data.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/app/program.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/text/prepare.hpp"

namespace fsllm {
namespace {

/// What one rank made: summaries as JSON lines, and counts.
struct Made {
  std::string summaries;
  PrepareCounts counts;
};

nlohmann::json to_json(SplitSummary const& split) {
  return {
      {"rows", split.rows}, {"tokens", split.tokens}, {"targets", split.targets}, {"groups", split.groups}};
}

SplitSummary split_from(nlohmann::json const& json) {
  return {json.at("rows"), json.at("tokens"), json.at("targets"), json.at("groups")};
}

std::string encode(ShardSummary const& s) {
  return nlohmann::json{{"client", s.client_id},
                        {"sha256", s.sha256},
                        {"train", to_json(s.train)},
                        {"val", to_json(s.val)},
                        {"test", to_json(s.test)}}
             .dump() +
         "\n";
}

std::vector<ShardSummary> decode(std::string const& lines) {
  std::vector<ShardSummary> summaries;
  for (size_t at = 0; at < lines.size();) {
    size_t const end = lines.find('\n', at);
    auto const json = nlohmann::json::parse(lines.substr(at, end - at));
    summaries.push_back({json.at("client"), split_from(json.at("train")), split_from(json.at("val")),
                         split_from(json.at("test")), json.at("sha256")});
    at = end + 1;
  }
  return summaries;
}

struct Written {
  ClientShard shard;
  std::string sha256;
};

Written write_one(ShardJob const& job, std::vector<Sample> const& samples, SplitPlan::Parts const& parts,
                  int64_t client, std::filesystem::path const& out, PrepareCounts& counts) {
  Written written;
  written.shard =
      make_shard(samples, parts, client, job.data, job.tokenizer, job.vocab_size, job.seed, counts);
  written.sha256 = write_shard(shard_path(out, client), written.shard);
  return written;
}

void report_counts(PrepareCounts const& counts) {
  log_info("{} rows tokenised: {} truncated to llm.tok_len, {} dropped because no target token was left",
           counts.rows, counts.truncated, counts.dropped_without_target);
}

}  // namespace

ShardIndex make_shards(ShardJob const& job, std::filesystem::path const& out, Communicator const& comm) {
  Made made;
  ShardIndex index;
  agree(comm, [&] {
    std::error_code problem;
    std::filesystem::create_directories(out, problem);
    FSLLM_CHECK(!problem, "{} cannot be created ({}). Choose another folder.", out.string(),
                problem.message());
    auto const samples = read_samples(job.data);
    auto const plan = plan_split(row_table(samples), job.data, job.client_num, job.seed);
    auto const clients = static_cast<int64_t>(plan.clients.size());
    for (int64_t client = 1 + comm.rank(); client <= clients; client += comm.size()) {
      auto const& parts = plan.clients[static_cast<size_t>(client - 1)];
      auto const [shard, sha256] = write_one(job, samples, parts, client, out, made.counts);
      made.summaries += encode(summarize(shard, sha256));
    }
    if (comm.rank() == 0) {
      PrepareCounts of_server;
      auto const shard =
          write_one(job, samples, {{}, plan.server.val, plan.server.test}, 0, out, of_server).shard;
      index.dataset = shard.dataset;
      index.splitter = shard.splitter;
      index.tokenizer_sha256 = shard.tokenizer_sha256;
      index.prompt_template = shard.prompt_template;
      index.seed = shard.seed;
      index.tok_len = shard.tok_len;
    }
  });
  for (auto const& part : comm.gather(made.summaries, 0))
    for (auto& summary : decode(part)) index.clients.push_back(std::move(summary));
  std::sort(index.clients.begin(), index.clients.end(),
            [](auto const& a, auto const& b) { return a.client_id < b.client_id; });
  made.counts.rows = comm.sum(made.counts.rows);
  made.counts.truncated = comm.sum(made.counts.truncated);
  made.counts.dropped_without_target = comm.sum(made.counts.dropped_without_target);
  agree(comm, [&] {
    if (comm.rank() == 0) write_shard_index(out, index);
  });
  report_counts(made.counts);
  return index;
}

}  // namespace fsllm
