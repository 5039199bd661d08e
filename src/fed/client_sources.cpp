// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/fed/client_data.hpp"

namespace fsllm {

std::vector<ClientSource> sources_in(std::filesystem::path const& dir) {
  std::vector<ClientSource> sources;
  for (auto const& client : read_shard_index(dir).clients)
    if (client.client_id > 0)
      sources.push_back({client, client.client_id, shard_path(dir, client.client_id), {}});
  FSLLM_CHECK(!sources.empty(), "{} lists no client (the index is empty). Shard again.",
              (dir / "index.json").string());
  return sources;
}

std::vector<std::string> own_roots(std::vector<std::string> const& roots, Communicator const& comm) {
  std::vector<std::string> own;
  for (size_t i = 0; i < roots.size(); ++i)
    if (roots.size() == 1 || i % static_cast<size_t>(comm.size()) == static_cast<size_t>(comm.rank()))
      own.push_back(roots[i]);
  return own;
}

namespace {

std::vector<ClientSource> own_sources(std::vector<std::string> const& roots, Communicator const& comm) {
  std::vector<ClientSource> own;
  for (auto const& root : own_roots(roots, comm)) {
    auto const found = sources_in(root);
    own.insert(own.end(), found.begin(), found.end());
  }
  return own;
}

/// A shard is the same client wherever its bytes are the same.
void add_visible(std::vector<ClientSource>& all, ShardSummary const& summary, int rank) {
  auto const same = std::find_if(all.begin(), all.end(),
                                 [&](auto const& each) { return each.summary.sha256 == summary.sha256; });
  if (same == all.end())
    all.push_back({summary, summary.client_id, {}, {rank}});
  else if (same->ranks.back() != rank)
    same->ranks.push_back(rank);
}

void number_apart(std::vector<ClientSource>& sources) {
  std::set<int64_t> ids;
  for (auto const& each : sources) ids.insert(each.summary.client_id);
  if (ids.size() < sources.size()) {
    log_info(
        "several shards of hpc.shard_roots have the same client id: clients are numbered in the order of "
        "ranks");
    int64_t next = 0;
    for (auto& each : sources) each.summary.client_id = ++next;
  }
  std::sort(sources.begin(), sources.end(),
            [](auto const& a, auto const& b) { return a.summary.client_id < b.summary.client_id; });
}

}  // namespace

std::vector<ClientSource> sources_at(std::vector<std::string> const& roots, Communicator const& comm) {
  std::vector<ClientSource> own, all;
  std::string problem;
  try {
    own = own_sources(roots, comm);
  } catch (Error const& error) {
    problem = fmt::format("rank {}: {}", comm.rank(), error.what());
  }
  for (auto const& said : comm.all_gather(problem))
    if (!said.empty()) fail(said);
  std::vector<ShardSummary> mine;
  for (auto const& each : own) mine.push_back(each.summary);
  auto const everyone = comm.all_gather(to_text(mine));
  for (size_t rank = 0; rank < everyone.size(); ++rank)
    for (auto const& summary : summaries_from_text(everyone[rank]))
      add_visible(all, summary, static_cast<int>(rank));
  std::map<std::string, std::filesystem::path> paths;
  for (auto const& each : own) paths.emplace(each.summary.sha256, each.path);
  for (auto& each : all)
    if (auto const path = paths.find(each.summary.sha256); path != paths.end()) each.path = path->second;
  number_apart(all);
  return all;
}

}  // namespace fsllm
