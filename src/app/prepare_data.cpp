// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/prepare_data.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fsllm/app/program.hpp"
#include "fsllm/app/run_config.hpp"
#include "fsllm/comm/cores.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/data/split_report.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

/// Records that one rank reads before the next rank's turn, when the table of rows is made.
constexpr int64_t kRecordsATurn = 1024;
/// Characters of text in the shards that are written in one pass: their tokens stay in memory.
constexpr int64_t kCharactersAPass = int64_t{128} << 20;
constexpr char const* kUnfinished = "unfinished.json";

/// Collective: what splitters know of every row; each rank reads its part of the records.
RowTable read_table(DataConfig const& data, Communicator const& comm) {
  RowTable mine;
  set_activity("reading the rows of " + data.type());
  agree(comm, [&] {
    for_each_sample(
        data, [&](Sample&& sample) { mine.add(sample, sample.record); },
        [&](int64_t record) { return record / kRecordsATurn % comm.size() == comm.rank(); });
  });
  if (comm.size() == 1) return mine;
  std::vector<RowTable> parts;
  for (auto const& bytes : comm.all_gather(to_bytes(mine))) parts.push_back(row_table_from_bytes(bytes));
  return merge(parts);
}

int64_t rows_of(ShardTask const& task) {
  return static_cast<int64_t>(task.parts->train.size() + task.parts->val.size() + task.parts->test.size());
}

int64_t characters_of(ShardTask const& task, RowTable const& table) {
  int64_t sum = 0;
  for (auto const* rows : {&task.parts->train, &task.parts->val, &task.parts->test})
    for (int64_t const row : *rows) sum += table.length[static_cast<size_t>(row)];
  return sum;
}

/// This rank's shards: the longest text first onto the rank that has least, the same on every rank.
std::vector<ShardTask> tasks_of(SplitPlan const& plan, SplitPlan::Parts const& server, RowTable const& table,
                                ShardPlace const& place, Communicator const& comm) {
  auto const out = place.path();
  std::vector<ShardTask> all{{shard_path(out, 0), 0, &server}};
  for (auto const& parts : plan.clients) {
    auto const client = static_cast<int64_t>(all.size());
    all.push_back({shard_path(out, client), client, &parts});
  }
  std::vector<std::pair<int64_t, ShardTask>> order;
  for (auto& task : all) {
    task.scratch = OutputFolder::scratch_of(place.root);
    order.emplace_back(characters_of(task, table), task);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](auto const& a, auto const& b) { return a.first > b.first; });
  std::vector<int64_t> load(static_cast<size_t>(comm.size()));
  std::vector<ShardTask> mine;
  for (auto const& [characters, task] : order) {
    auto const rank = std::min_element(load.begin(), load.end());
    *rank += characters;
    if (rank - load.begin() == comm.rank()) mine.push_back(task);
  }
  return mine;
}

/// Takes the shards that lie there already out of `tasks`.
std::vector<ShardSummary> finished(std::vector<ShardTask>& tasks) {
  std::vector<ShardSummary> summaries;
  std::erase_if(tasks, [&](ShardTask const& task) {
    if (!fs::is_regular_file(task.path)) return false;
    try {
      summaries.push_back(summarize(read_shard(task.path), sha256_file(task.path)));
    } catch (Error const& error) {
      log_warning("{} The shard is made again.", error.what());
      return false;
    }
    return true;
  });
  return summaries;
}

std::vector<ShardSummary> make_tasks(std::vector<ShardTask> tasks, RowTable const& table,
                                     PrepareJob const& job, PrepareCounts& counts, bool shows_progress) {
  auto summaries = finished(tasks);
  if (!summaries.empty()) log_info("{} shards of an earlier call are kept", summaries.size());
  int64_t total = 0;
  for (auto const& task : tasks) total += task.client_id > 0 ? rows_of(task) : 0;
  Progress progress("sharding", total, "rows", shows_progress && total > 0);
  for (size_t begin = 0; begin < tasks.size();) {
    std::vector<ShardTask> pass;
    int64_t characters = 0;
    for (; begin < tasks.size() && (pass.empty() || characters < kCharactersAPass); ++begin) {
      pass.push_back(tasks[begin]);
      characters += characters_of(tasks[begin], table);
    }
    int64_t done = 0;
    auto const made = write_shards(pass, table, job, counts, [&](int64_t rows) {
      progress.advance(rows - done);
      done = rows;
    });
    summaries.insert(summaries.end(), made.begin(), made.end());
  }
  return summaries;
}

/// Everything that a job of so many clients writes, but the index.
std::vector<std::string> files_of(std::string const& prefix, size_t clients) {
  std::vector<std::string> names{prefix + kUnfinished, prefix + "report.txt", prefix + "report.svg"};
  for (size_t client = 0; client <= clients; ++client)
    names.push_back(prefix + shard_path("", static_cast<int64_t>(client)).string());
  return names;
}

/// Rank 0: marks the place as unfinished work of this job; what another one left there is removed.
void begin_job(ShardJob const& job, RowTable const& table, size_t clients, ShardPlace const& place) {
  auto const tokenizer = job.rows.tokenizer == nullptr ? "" : job.rows.tokenizer->sha256();
  auto const mark =
      nlohmann::json{{"job", sha256(job.description + tokenizer + job.rows.prompt.name + to_bytes(table))}}
          .dump() +
      "\n";
  auto const prefix = place.name.empty() ? "" : place.name + "/";
  auto& folder = *place.folder;
  auto const file = place.path() / kUnfinished;
  bool const same = folder.owns(prefix + kUnfinished) && fs::exists(file) && read_file(file) == mark;
  if (!same) folder.remove({prefix});
  folder.check_free({prefix + "index.json"});
  folder.own(files_of(prefix, clients));
  if (!place.name.empty()) make_private_folder(place.path());
  if (!same) folder.write(prefix + kUnfinished, mark);
}

ShardIndex index_of(ShardJob const& job, std::vector<ShardSummary> clients) {
  ShardIndex index{job.rows.data.type(), job.rows.data.splitter};
  if (job.rows.tokenizer != nullptr) {
    index.tokenizer_sha256 = job.rows.tokenizer->sha256();
    index.prompt_template = job.rows.prompt.name;
    index.prompt_json = to_json(self_contained(job.rows.data.prompt)).dump();
  }
  index.seed = static_cast<int64_t>(job.rows.seed);
  index.tok_len = job.rows.data.tok_len;
  index.pairs = job.rows.data.pairs;
  index.clients = std::move(clients);
  std::erase_if(index.clients,
                [](auto const& client) { return client.client_id == 0; });  // the server's rows
  std::sort(index.clients.begin(), index.clients.end(),
            [](auto const& a, auto const& b) { return a.client_id < b.client_id; });
  return index;
}

void report_counts(PrepareCounts const& counts, bool pairs) {
  auto const too_long = counts.dropped_too_long > 0
                            ? fmt::format(", {} dropped as longer than that", counts.dropped_too_long)
                            : "";
  auto const alike = counts.dropped_alike > 0
                         ? fmt::format(", {} because their answers are the same then", counts.dropped_alike)
                         : "";
  log_info("{} {} tokenised: {} truncated to llm.tok_len{}, {} dropped because no target token was left{}",
           counts.rows, pairs ? "pairs" : "rows", counts.truncated, too_long, counts.dropped_without_target,
           alike);
}

}  // namespace

void warn_of_truncation(PrepareCounts const& counts, int64_t tok_len) {
  auto const cut = counts.truncated + counts.dropped_too_long;
  if (2 * cut > counts.rows + counts.dropped_too_long)
    log_warning("{} of {} rows are longer than llm.tok_len = {}: most lose a part. Set it higher.", cut,
                counts.rows + counts.dropped_too_long, tok_len);
}

int preparing_threads() {
  if (char const* const set = std::getenv("OMP_NUM_THREADS"); set != nullptr && std::atoi(set) > 0)
    return std::atoi(set);
  return cores_of_rank();
}

ShardIndex make_shards(ShardJob const& job, ShardPlace const& place, Communicator const& comm) {
  auto const table = read_table(job.rows.data, comm);
  SplitPlan plan;
  agree(comm, [&] {
    FSLLM_CHECK(table.rows() > 0, "{} has no rows that can be read. Check the file.", job.rows.data.type());
    plan = plan_split(table, job.rows.data, job.client_num, job.rows.seed);
  });
  agree(comm, [&] {
    if (comm.rank() == 0) begin_job(job, table, plan.clients.size(), place);
  });
  SplitPlan::Parts const server{{}, plan.server.val, plan.server.test};
  PrepareCounts counts;
  std::vector<ShardSummary> mine;
  set_activity("writing shards");
  agree(comm, [&] {
    mine = make_tasks(tasks_of(plan, server, table, place, comm), table, job.rows, counts, comm.rank() == 0);
  });
  std::vector<ShardSummary> all;
  for (auto const& part : comm.gather(to_text(mine), 0))
    for (auto& summary : summaries_from_text(part)) all.push_back(std::move(summary));
  auto const index = index_of(job, std::move(all));
  for (auto* count : {&counts.rows, &counts.truncated, &counts.dropped_too_long,
                      &counts.dropped_without_target, &counts.dropped_alike})
    *count = comm.sum(*count);
  agree(comm, [&] {
    if (comm.rank() != 0) return;
    auto const out = place.path(), scratch = OutputFolder::scratch_of(place.root);
    place.folder->check();
    write_split_report(out, index, scratch);
    place.folder->own({place.name.empty() ? "index.json" : place.name + "/index.json"});
    write_shard_index(out, index, scratch);
    fs::remove(out / kUnfinished);
  });
  report_counts(counts, job.rows.data.pairs);
  if (comm.rank() == 0) warn_of_truncation(counts, job.rows.data.tok_len);
  return index;
}

}  // namespace fsllm
