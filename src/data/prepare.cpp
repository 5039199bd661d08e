// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/prepare.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <map>
#include <set>
#include <thread>

#include "client_split.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/shard_writer.hpp"

namespace fsllm {
namespace {

constexpr size_t kChunk = 512;                   ///< samples that are tokenised side by side
constexpr size_t kHeldTokens = size_t{1} << 20;  ///< tokens of a split in memory

/// A row can be learnt from if something behind its first token is scored.
bool has_target(EncodedSample const& sample) {
  return !sample.ids.empty() &&
         std::find(sample.is_target.begin() + 1, sample.is_target.end(), 1) != sample.is_target.end();
}

void check_ids(EncodedSample const& encoded, Sample const& sample, int64_t vocab_size) {
  auto const largest = std::max_element(encoded.ids.begin(), encoded.ids.end());
  FSLLM_CHECK(largest == encoded.ids.end() || *largest < vocab_size,
              "{}: token id {} (the model's vocabulary has {}). Use the tokenizer that belongs to the model.",
              sample.place, *largest, vocab_size);
}

EncodedSample encode(Sample const& sample, PrepareJob const& job) {
  bool const keeps_front = job.data.truncate == "answer_right";
  auto encoded = encode_sample(sample, job.prompt, job.tokenizer,
                               keeps_front ? job.data.tok_len : std::numeric_limits<int64_t>::max());
  check_ids(encoded, sample, job.vocab_size);
  return encoded;
}

std::optional<int32_t> bos_of(PrepareJob const& job) {
  return job.tokenizer != nullptr ? job.tokenizer->bos_id() : std::nullopt;
}

enum class Answer { chosen, rejected };

/// One answer of a pair with its prompt; nothing else is scored.
Sample answer_of(Sample sample, Answer which) {
  for (size_t i = 0; i + 1 < sample.messages.size(); ++i) sample.messages[i].learnt = false;
  if (which == Answer::chosen) return sample;
  if (sample.kind == SampleKind::chat) {
    sample.messages.back().content = sample.rejected;
  } else if (sample.kind == SampleKind::tokens) {
    sample.ids = sample.rejected_ids;
    sample.is_target = sample.rejected_is_target;
  } else {
    sample.output = sample.rejected;
  }
  return sample;
}

/// Categories of these rows, in alphabetical order; rows without one have none.
std::vector<std::string> category_names(RowTable const& table, SplitPlan::Parts const& parts) {
  std::set<std::string> names;
  for (auto const part : kParts)
    for (int64_t const row : parts.*part) names.insert(table.category_of(row));
  names.erase("");
  return {names.begin(), names.end()};
}

ClientShard header_of(ShardTask const& task, RowTable const& table, PrepareJob const& job) {
  ClientShard header{task.client_id, job.data.type(), job.data.splitter};
  header.pairs = job.data.pairs;
  if (job.tokenizer != nullptr) {
    header.tokenizer_sha256 = job.tokenizer->sha256();
    header.prompt_template = job.prompt.name;
  }
  header.seed = static_cast<int64_t>(job.seed);
  header.tok_len = job.data.tok_len;
  header.vocab_size = job.vocab_size;
  header.group_names = category_names(table, *task.parts);
  return header;
}

/// Where one record goes: the shard, its split, and the row's place in the order of the split.
struct Destination {
  int64_t record, row;
  size_t task;
  SplitName split;
};

/// A row on its way into shards.
struct Prepared {
  std::vector<EncodedSample> encoded;  ///< one, two of a pair, none of a row that is dropped
  PrepareCounts counts;
  std::string category;
  int64_t record = 0;
};

/// Work of `count` items over `threads` threads; the first exception is thrown again.
template <class Work>
void in_parallel(size_t count, int threads, Work const& work) {
  std::atomic<size_t> next{0};
  std::vector<std::exception_ptr> problems(count);
  auto const run = [&] {
    for (size_t i = next++; i < count; i = next++) {
      try {
        work(i);
      } catch (...) {
        problems[i] = std::current_exception();
      }
    }
  };
  std::vector<std::jthread> others;
  for (int t = 1; t < threads && static_cast<size_t>(t) < count; ++t) others.emplace_back(run);
  run();
  others.clear();
  for (auto const& problem : problems)
    if (problem) std::rethrow_exception(problem);
}

class ShardPass {
 public:
  ShardPass(std::vector<ShardTask> const& tasks, RowTable const& table, PrepareJob const& job,
            std::function<void(int64_t)> const& progress)
      : tasks_(tasks), job_(job), progress_(progress) {
    for (size_t t = 0; t < tasks.size(); ++t) {
      writers_.emplace_back(tasks[t].path, header_of(tasks[t], table, job), kHeldTokens, tasks[t].scratch);
      for (size_t p = 0; p < std::size(kParts); ++p)
        for (int64_t const row : tasks[t].parts->*kParts[p])
          destinations_.push_back(
              {table.record[static_cast<size_t>(row)], row, t, static_cast<SplitName>(p)});
    }
    std::stable_sort(destinations_.begin(), destinations_.end(),
                     [](auto const& a, auto const& b) { return a.record < b.record; });
  }

  std::vector<ShardSummary> run(PrepareCounts& counts) {
    size_t cursor = 0;
    auto const wanted = [&](int64_t record) {
      while (cursor < destinations_.size() && destinations_[cursor].record < record) ++cursor;
      return cursor < destinations_.size() && destinations_[cursor].record == record;
    };
    if (!destinations_.empty())
      for_each_sample(
          job_.data, [&](Sample&& sample) { take(std::move(sample)); }, wanted);
    flush();
    if (job_.data.compat) write_in_order_of_split();
    counts += counts_;
    std::vector<ShardSummary> summaries;
    for (auto& writer : writers_) summaries.push_back(writer.finish());
    return summaries;
  }

 private:
  void take(Sample&& sample) {
    chunk_.push_back(std::move(sample));
    if (chunk_.size() == kChunk) flush();
  }

  void flush() {
    std::vector<Prepared> prepared(chunk_.size());
    in_parallel(chunk_.size(), job_.threads, [&](size_t i) {
      prepared[i].encoded = prepare_rows(chunk_[i], job_, prepared[i].counts);
      prepared[i].category = std::move(chunk_[i].category);
      prepared[i].record = chunk_[i].record;
    });
    for (auto& row : prepared) {
      if (job_.data.compat)
        held_.emplace(row.record, std::move(row));
      else
        hand_over(row);
    }
    if (progress_)
      progress_(counts_.rows + counts_.dropped_too_long + counts_.dropped_without_target +
                counts_.dropped_alike);
    chunk_.clear();
  }

  /// To all shards that want the next record.
  void hand_over(Prepared const& row) {
    while (next_ < destinations_.size() && destinations_[next_].record < row.record) ++next_;
    for (; next_ < destinations_.size() && destinations_[next_].record == row.record; ++next_)
      append(destinations_[next_], row);
  }

  void append(Destination const& to, Prepared const& row) {
    if (tasks_[to.task].client_id > 0) counts_ += row.counts;
    auto& writer = writers_[to.task];
    auto const& names = writer.group_names();
    auto const name = std::lower_bound(names.begin(), names.end(), row.category);
    for (auto const& encoded : row.encoded)
      writer.append(to.split, encoded.ids, encoded.is_target,
                    row.category.empty() ? -1 : static_cast<int32_t>(name - names.begin()));
  }

  void write_in_order_of_split() {
    std::map<int64_t, int64_t> record_of_row;
    for (auto const& to : destinations_) record_of_row[to.row] = to.record;
    for (size_t t = 0; t < tasks_.size(); ++t)
      for (size_t p = 0; p < std::size(kParts); ++p)
        for (int64_t const row : tasks_[t].parts->*kParts[p])
          append({0, row, t, static_cast<SplitName>(p)}, held_.at(record_of_row.at(row)));
  }

  std::vector<ShardTask> const& tasks_;
  PrepareJob const& job_;
  std::function<void(int64_t)> const& progress_;
  std::vector<ShardWriter> writers_;
  std::vector<Destination> destinations_;
  size_t next_ = 0;
  std::vector<Sample> chunk_;
  std::map<int64_t, Prepared> held_;  ///< compat.fsllm alone
  PrepareCounts counts_;
};

}  // namespace

PrepareCounts& operator+=(PrepareCounts& a, PrepareCounts const& b) {
  a.rows += b.rows;
  a.truncated += b.truncated;
  a.dropped_too_long += b.dropped_too_long;
  a.dropped_without_target += b.dropped_without_target;
  a.dropped_alike += b.dropped_alike;
  return a;
}

std::optional<EncodedSample> prepare_sample(Sample const& sample, PrepareJob const& job,
                                            PrepareCounts& counts) {
  auto encoded = encode(sample, job);
  bool const too_long = truncate_sample(encoded, job.data.tok_len, job.data.truncate, bos_of(job));
  if (too_long && job.data.truncate == "drop") {
    ++counts.dropped_too_long;
    return std::nullopt;
  }
  if (!has_target(encoded)) {
    ++counts.dropped_without_target;
    return std::nullopt;
  }
  ++counts.rows;
  counts.truncated += too_long ? 1 : 0;
  return encoded;
}

std::vector<EncodedSample> prepare_rows(Sample const& sample, PrepareJob const& job, PrepareCounts& counts) {
  if (!job.data.pairs) {
    auto one = prepare_sample(sample, job, counts);
    return one ? std::vector{std::move(*one)} : std::vector<EncodedSample>();
  }
  std::vector<EncodedSample> pair{encode(answer_of(sample, Answer::chosen), job),
                                  encode(answer_of(sample, Answer::rejected), job)};
  bool const too_long = truncate_pair(pair[0], pair[1], job.data.tok_len, job.data.truncate, bos_of(job));
  int64_t* dropped = nullptr;
  if (too_long && job.data.truncate == "drop")
    dropped = &counts.dropped_too_long;
  else if (!has_target(pair[0]) || !has_target(pair[1]))
    dropped = &counts.dropped_without_target;
  else if (pair[0].ids == pair[1].ids)
    dropped = &counts.dropped_alike;
  if (dropped != nullptr) {
    ++*dropped;
    return {};
  }
  ++counts.rows;
  counts.truncated += too_long ? 1 : 0;
  return pair;
}

std::vector<ShardSummary> write_shards(std::vector<ShardTask> const& tasks, RowTable const& table,
                                       PrepareJob const& job, PrepareCounts& counts,
                                       std::function<void(int64_t)> const& progress) {
  return ShardPass(tasks, table, job, progress).run(counts);
}

}  // namespace fsllm
