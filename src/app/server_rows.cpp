// SPDX-License-Identifier: Apache-2.0
#include "server_rows.hpp"

#include <algorithm>
#include <map>

#include "fsllm/core/error.hpp"
#include "fsllm/data/prepare.hpp"

namespace fsllm {
namespace {

constexpr size_t kJudged = 64;

struct Rows {
  std::vector<int64_t> train, judged;
};

/// The rows that are needed of a training part and the one beside it.
Rows needed(Setup const& s, std::vector<int64_t> train, std::vector<int64_t> judged) {
  auto const& align = s.run.offsite.align;
  auto const taken = static_cast<size_t>(align.steps * s.run.train.batch.batch_size);
  if (!align.epochs && train.size() > taken) train.resize(taken);
  if (judged.size() > kJudged) judged.resize(kJudged);
  return {std::move(train), std::move(judged)};
}

ServerRows of_own_data_set(Setup const& s) {
  auto const& align = s.run.offsite.align;
  auto data = s.run.data;
  data.root = align.data_root;
  if (s.run.data.types != std::vector{align.data_type}) data.columns.clear();  // those of the clients' files
  data.types = {align.data_type};
  data.splits = align.splits;
  data.splitter = "iid";
  data.subsample = 1;
  data.pairs = false;
  RowTable table;
  for_each_sample(data, [&](Sample&& sample) { table.add(sample, sample.record); });
  auto const parts = plan_split(table, data, 1, s.run.fed.seed).server;
  auto const rows = needed(s, parts.train, parts.val);
  ServerRows result;
  std::map<int64_t, TokenSplit*> places;
  for (int64_t const row : rows.train) places[table.record[static_cast<size_t>(row)]] = &result.train;
  for (int64_t const row : rows.judged) places[table.record[static_cast<size_t>(row)]] = &result.judged;
  PrepareJob const job{data, s.run.fed.seed, s.tokenizer(), s.model.vocab_size, 1, s.prompt};
  PrepareCounts counts;
  for_each_sample(
      data,
      [&](Sample&& sample) {
        if (auto const row = prepare_sample(sample, job, counts))
          places.at(sample.record)->append(row->ids, row->is_target, -1);
      },
      [&](int64_t record) { return places.contains(record); });
  result.source = data.type();
  return result;
}

/// Copies of some rows.
TokenSplit chosen(TokenSplit const& all, std::vector<int64_t> const& rows) {
  TokenSplit some;
  for (int64_t const row : rows) {
    auto const begin = all.offsets[static_cast<size_t>(row)], end = all.offsets[static_cast<size_t>(row) + 1];
    some.append({all.tokens.begin() + begin, all.tokens.begin() + end},
                {all.target.begin() + begin, all.target.begin() + end}, -1);
  }
  return some;
}

ServerRows of_held_out_rows(Setup const& s) {
  std::filesystem::path const dir =
      s.run.data.shards.empty() ? s.directory.shards() : std::filesystem::path(s.run.data.shards);
  auto const file = shard_path(dir, 0);
  FSLLM_CHECK(
      s.run.shard_roots.empty() && std::filesystem::exists(file) && !s.run.data.pairs,
      "llm.offsite_tuning.emu_align.use = True ({}). Name a data set of the server's own: "
      "llm.offsite_tuning.emu_align.data.{{root, type}}.",
      s.run.data.pairs ? "the run's rows are pairs of answers" : "the server holds no rows of this run");
  auto const shard = read_shard(file, s.tokenizer_sha256());
  bool const validation = shard.val.rows() > 0;
  auto const& held = validation ? shard.val : shard.test;
  auto const& splits = s.run.offsite.align.splits;
  auto const count = static_cast<double>(held.rows());
  auto const trained = static_cast<int64_t>(splits[0] * count),
             judged = static_cast<int64_t>(splits[1] * count);
  std::vector<int64_t> train, beside;
  for (int64_t row = 0; row < trained; ++row) train.push_back(row);
  for (int64_t row = trained; row < trained + judged; ++row) beside.push_back(row);
  auto const rows = needed(s, train, beside);
  return {chosen(held, rows.train), chosen(held, rows.judged),
          validation ? "the run's validation data" : "the run's test data"};
}

}  // namespace

ServerRows server_rows(Setup const& s) {
  auto rows = s.run.offsite.align.data_type.empty() ? of_held_out_rows(s) : of_own_data_set(s);
  FSLLM_CHECK(
      rows.train.rows() > 0,
      "llm.offsite_tuning.emu_align.use = True (of {} no row is left to learn from). Name a data set of "
      "the server's own: llm.offsite_tuning.emu_align.data.{{root, type}}, or raise the share in "
      "its splits.",
      rows.source);
  return rows;
}

}  // namespace fsllm
