// SPDX-License-Identifier: Apache-2.0
#include "plan_time.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "fsllm/app/program.hpp"
#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/train/loss.hpp"
#include "groups.hpp"
#include "trainable.hpp"

namespace fsllm {
namespace {

constexpr int64_t kSteps = 4;                ///< measured, after one that brings in memory and kernels
constexpr int64_t kEvaluationTokens = 2048;  ///< of a batch (fed/evaluate.cpp)
constexpr size_t kBatches = 4;               ///< measured, after the first

/// Seconds a token, of a client's batches; of the busiest rank.
struct Rate {
  double train = 0, evaluate = 0;
};

/// Tokens a round, of the rank that has most.
struct Work {
  double train = 0, evaluate = 0;
};

double seconds_of(std::function<void()> const& call) {
  auto const start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Why no steps can be measured; "": they can.
std::string reason_against(Setup const& s, std::vector<ClientSource> const& sources) {
  if (sources.empty()) return "data.shards names no ready shards; fsllm_shard makes them";
  if (s.run.data.pairs) return "rows are pairs of answers";
  if (s.run.fed.clients_per_pass > 1) return "clients share passes";
  if (s.run.fed.asyn.use) return "rounds overlap";
  return "";
}

/// Some batches as an evaluation has them; the first one brings in memory and kernels.
std::vector<Batch> evaluation_batches(TokenSplit const& split, BatchConfig const& config) {
  std::vector<Batch> batches;
  for (int64_t row = 0; row < split.rows(); ++row) {
    if (batches.empty() || batches.back().num_tokens() >= kEvaluationTokens) {
      if (batches.size() > kBatches) break;
      batches.emplace_back().packing = config.packing;
    }
    append_row(batches.back(), split, row);
  }
  return batches;
}

/// Collective over a group.
Rate measure(Setup const& s, Trainable& t, ClientSource const& source) {
  auto const shard = read_shard(source.path);
  auto config = s.run.train;
  config.epochs = false;
  config.local_update_steps = kSteps + 1;
  auto* const group = t.group.get();
  LocalTraining training(*t.model, t.parameters, shard.train, config,
                         {s.run.fed.seed, source.summary.client_id, 0, s.run.fed.rounds}, {}, {}, group);
  training.step();
  int64_t tokens = 0;
  double const steps = seconds_of([&] {
    while (!training.done()) tokens += training.step().tokens;
  });
  auto const& judged = shard.val.rows() > 0 ? shard.val : shard.test.rows() > 0 ? shard.test : shard.train;
  auto const batches = evaluation_batches(judged, config.batch);
  at::NoGradGuard const no_grad;
  auto const evaluate = [&](Batch const& batch) {
    summed_loss(*t.model, group ? group->share_of(batch).batch : batch).item<double>();
  };
  evaluate(batches.front());
  size_t const first = batches.size() > 1 ? 1 : 0;
  int64_t evaluated = 0;
  double const seconds = seconds_of([&] {
    for (size_t i = first; i < batches.size(); ++i) {
      evaluate(batches[i]);
      evaluated += batches[i].num_tokens();
    }
  });
  return {steps / static_cast<double>(std::max<int64_t>(1, tokens)),
          seconds / static_cast<double>(evaluated)};
}

/// Tokens that a client trains on in a round.
double tokens_of(TrainConfig const& config, SplitSummary const& train) {
  auto const all = static_cast<double>(train.tokens);
  if (config.epochs) return all * static_cast<double>(config.local_update_steps);
  auto const rows = planned_steps(config, train.rows) * config.accumulation * config.batch.batch_size;
  return all * static_cast<double>(rows) / static_cast<double>(std::max<int64_t>(1, train.rows));
}

double largest_share(std::vector<double> const& costs, int lanes, bool server_trains) {
  std::vector<int64_t> clients(costs.size());
  std::iota(clients.begin(), clients.end(), int64_t{0});
  double most = 0;
  for (auto const& own : place_clients(clients, costs, lanes, !server_trains && lanes > 1 ? 1 : 0)) {
    double sum = 0;
    for (auto const client : own) sum += costs[static_cast<size_t>(client)];
    most = std::max(most, sum);
  }
  return most;
}

Work work_of(Setup const& s, std::vector<ClientSource> const& sources, int lanes) {
  auto const& fed = s.run.fed;
  std::vector<double> train, evaluate;
  for (auto const& source : sources) {
    train.push_back(tokens_of(s.run.train, source.summary.train));
    double tokens = 0;
    for (auto const& split : fed.selection.splits)
      tokens += static_cast<double>(split == "val" ? source.summary.val.tokens : source.summary.test.tokens);
    evaluate.push_back(tokens);
  }
  Work work{largest_share(train, lanes, fed.server_trains),
            largest_share(evaluate, lanes, fed.server_trains)};
  if (fed.sample_client_num > 0 && fed.sample_client_num < std::ssize(sources))
    work.train *= static_cast<double>(fed.sample_client_num) / static_cast<double>(sources.size());
  return work;
}

}  // namespace

void print_time(Setup& s, std::vector<ClientSource> const& sources, Communicator const& comm) {
  auto const reason = reason_against(s, sources);
  if (!reason.empty()) {
    if (comm.rank() == 0) fmt::print("\nseconds are not predicted ({})\n", reason);
    return;
  }
  agree(comm, [&] { check_group_size(s, comm); });
  at::set_num_threads(threads_per_rank(s.run));
  if (s.run.stage_dir.empty()) s.run.stage_dir = user_cache_dir().string();
  Groups const groups(s, comm);
  int const lanes = groups.across_ranks.size(), lane = groups.across_ranks.rank();
  Rate rate;
  set_activity("measuring steps");
  agree(comm, [&] {
    auto trainable = load_trainable(s, groups.group.get());
    rate = measure(s, trainable, sources[static_cast<size_t>(lane) % sources.size()]);
  });
  for (auto const& other : all_gather(std::vector{rate}, comm))
    rate = {std::max(rate.train, other.train), std::max(rate.evaluate, other.evaluate)};
  if (comm.rank() != 0) return;
  auto const work = work_of(s, sources, lanes);
  auto const& fed = s.run.fed;
  double const train = work.train * rate.train, evaluate = work.evaluate * rate.evaluate;
  auto const rounds = static_cast<double>(fed.rounds);
  int64_t const evaluations = (fed.rounds + fed.selection.eval_every - 1) / fed.selection.eval_every;
  fmt::print(
      "\nmeasured now: {:.0f} tokens/s a {} to train, {:.0f} to evaluate\n"
      "seconds of training a round {:.2f}\nseconds of an evaluation {:.2f}\nseconds of all {} rounds "
      "{:.1f}\n",
      1 / rate.train, groups.group ? "group" : "rank", 1 / rate.evaluate, train, evaluate, fed.rounds,
      rounds * train + static_cast<double>(evaluations) * evaluate);
}

}  // namespace fsllm
