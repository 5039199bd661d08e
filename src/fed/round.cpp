// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/round.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/device_memory.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/io/files.hpp"
#include "not_finite.hpp"
#include "participants.hpp"
#include "run.hpp"
#include "stop.hpp"

namespace fsllm {
namespace detail {

Run::Run(Federation& federation)
    : f_(federation),
      config_(federation.config),
      comm_(federation.collective.communicator()),
      clients_(participants(config_, federation.data)),
      unseen_(unseen_clients(config_, clients_)),
      trained_(training_clients(config_, clients_)),
      owned_(place(clients_)),
      splits_(splits_with_rows(config_, federation.data, clients_)),
      global_(clone(federation.parameters)),
      algorithm_(make_algorithm(config_, global_)),
      selection_(config_.selection) {
  if (!unseen_.empty()) log_info("clients {} are evaluated apart and never train", fmt::join(unseen_, ", "));
}

std::vector<std::vector<int64_t>> Run::place(std::vector<int64_t> const& clients) const {
  std::vector<double> costs;
  for (int64_t const client : clients) {
    auto const& train = f_.data.summary(client).train;
    auto const& config = f_.train_config(client);
    double const rows = static_cast<double>(std::max<int64_t>(1, train.rows));
    costs.push_back(static_cast<double>(planned_steps(config, std::max<int64_t>(1, train.rows))) *
                    static_cast<double>(train.tokens) / rows);
  }
  std::vector<std::vector<int>> allowed;
  for (int64_t const client : clients) allowed.push_back(f_.data.ranks_of(client));
  int const first = !config_.server_trains && comm_.size() > 1 ? 1 : 0;
  return place_clients(clients, costs, comm_.size(), first, allowed);
}

TensorMap const& Run::start_of(int64_t client) const {
  auto const own = personal_.find(client);
  return own == personal_.end() ? global_ : own->second;
}

/// A copy for the time until it is needed again.
TensorMap Run::kept(TensorMap const& values) const {
  auto const copy = clone(values);
  return f_.rest_on_host ? moved(copy, at::kCPU) : copy;
}

TensorMap Run::layout_of_kept() const {
  return f_.rest_on_host ? moved(global_, at::kCPU) : global_;
}

void Run::end_turn() {
  if (!f_.rest_on_host) return;
  for (auto const& [name, tensor] : f_.parameters) tensor.mutable_grad().reset();
  release_unused_device_memory(device());
}

ClientReport Run::train_client_here(int64_t client, int64_t round, double weight, Aggregation& aggregation,
                                    Progress& progress) {
  auto const start = moved(start_of(client), device());
  copy_values(f_.parameters, start);
  ClientReport report;
  report.client = client;
  report.result = train_client(f_.model, f_.parameters, f_.data.shard(client).train, f_.train_config(client),
                               {config_.seed, client, round, config_.rounds}, [&](int64_t, double loss) {
                                 if (first_step_ == 0) first_step_ = seconds_since_process_start();
                                 stop_where_asked();
                                 progress.advance(1, fmt::format("client {}, loss {:.3f}", client, loss));
                               });
  check_training(f_.model, f_.parameters, report.result,
                 fmt::format("client {}, round {}", client, round + 1));
  auto const update = subtract(f_.parameters, start);
  report.update_norm = l2_norm(update);
  if (local()) {
    personal_[client] = kept(f_.parameters);
  } else {
    aggregation.add(update, weight, fmt::format("client {}", client));
  }
  return report;
}

std::vector<ClientReport> Run::train_round(int64_t round, Aggregation& aggregation) {
  auto const sampled = local() ? trained_ : sample_clients(config_, trained_, round);
  auto mine = (local() ? owned_ : place(sampled))[static_cast<size_t>(comm_.rank())];
  std::erase_if(mine, [&](int64_t client) { return std::ranges::binary_search(unseen_, client); });
  auto const weight_of = [&](int64_t client) {
    return config_.ignore_weight ? 1.0 : static_cast<double>(f_.data.summary(client).train.rows);
  };
  double all_weight = 0;
  for (int64_t const client : sampled) all_weight += weight_of(client);
  int64_t steps = 0;
  for (int64_t const client : mine)
    steps += planned_steps(f_.train_config(client), f_.data.shard(client).train.rows());
  std::vector<ClientReport> reports;
  {
    Progress progress(fmt::format("round {}/{}", round + 1, config_.rounds), steps, "steps", server());
    try {
      for (int64_t const client : mine) {
        reports.push_back(
            train_client_here(client, round, weight_of(client) / all_weight, aggregation, progress));
        end_turn();
      }
    } catch (Interrupted const&) {
      reports.clear();
    }
  }
  stopped_ = comm_.max(interrupted() ? 1 : 0) != 0;
  return gather_reports(reports, comm_);
}

ClientLosses Run::evaluate() {
  auto losses = evaluate_all();
  for (auto const& split : splits_)
    for (int64_t const client : unseen_)
      if (auto entry = losses[split].extract(client)) losses[split + "_unseen"].insert(std::move(entry));
  return losses;
}

ClientLosses Run::evaluate_all() {
  if (!local()) {
    copy_values(f_.parameters, global_);
    return evaluate_clients(f_.model, f_.data, f_.train_config, owned_, splits_, comm_);
  }
  std::vector<std::vector<int64_t>> one(owned_.size());
  ClientLosses losses;
  for (size_t turn = 0; turn < clients_.size(); ++turn) {
    // Each client is judged with its own parameters; ranks whose clients are done take part with none.
    auto const& mine = owned_[static_cast<size_t>(comm_.rank())];
    for (size_t rank = 0; rank < owned_.size(); ++rank)
      one[rank] =
          turn < owned_[rank].size() ? std::vector<int64_t>{owned_[rank][turn]} : std::vector<int64_t>{};
    if (turn < mine.size()) copy_values(f_.parameters, start_of(mine[turn]));
    for (auto const& [split, part] :
         evaluate_clients(f_.model, f_.data, f_.train_config, one, splits_, comm_))
      losses[split].insert(part.begin(), part.end());
  }
  return losses;
}

/// Records the loss that decides; true if the run should stop.
bool Run::select(RoundReport& report) {
  auto const split = config_.selection.best_key.starts_with("val") ? "val" : "test";
  auto const found = report.losses.find(split);
  if (found == report.losses.end()) return false;
  auto const loss = total(found->second);
  if (loss.targets == 0) return false;
  report.best = selection_.observe(loss.sum / static_cast<double>(loss.targets));
  if (report.best && !local()) {
    best_ = kept(global_);
    best_round_ = report.round;
    if (server()) save_as("best", best_);
  }
  return selection_.stop();
}

void Run::write_report(RoundReport const& report) {
  if (!server()) return;
  f_.output->check();
  metrics_->write(last_event_ = to_json(report));
  append_to_file(f_.directory.eval_results(), eval_result_lines(report));
  log_info("{}", round_line(report, config_.rounds));
}

RunSummary Run::train(bool resume) {
  record_ = f_.record;
  if (resume) restore();
  saved_ = done_;
  if (ended_) {
    log_info(
        "the run has ended after {} rounds; nothing is left to do. Raise federate.total_round_num to "
        "go on, or choose another expname.",
        done_);
    return {done_, selection_.stop()};
  }
  if (server() && !record_.empty()) f_.output->write("run.json", record_ + "\n");
  note_for_signals();
  if (server()) metrics_ = std::make_unique<JsonlWriter>(f_.directory.metrics());
  bool const exact = config_.reduce == "exact" || (config_.reduce == "auto" && !f_.full_model);
  if (done_ == 0 && !splits_.empty()) {
    RoundReport start;
    start.losses = evaluate();
    check_first_losses(start.losses, f_.model);
    write_report(start);
  }
  bool stop = selection_.stop();
  for (int64_t round = done_; round < config_.rounds && !stop; ++round) {
    PhaseClock clock;
    auto const traffic = f_.collective.traffic();
    auto const aggregation = exact
                                 ? make_exact_aggregation(global_, static_cast<int>(config_.fixed_point_bits))
                                 : make_native_aggregation(global_);
    RoundReport report;
    report.round = round + 1;
    report.clients = train_round(round, *aggregation);
    if (stopped_) {
      save_interrupted();
      return {done_, false, true};
    }
    check_steps(report.clients, report.round);
    clock.lap("train");
    if (!local()) {
      auto const mean = aggregation->reduce(f_.collective);
      if (server()) algorithm_->server_step(global_, mean, round);
      f_.collective.broadcast(global_, 0);
    }
    clock.lap("aggregate");
    bool const last_round = report.round == config_.rounds;
    if (!splits_.empty() && (last_round || report.round % config_.selection.eval_every == 0)) {
      report.losses = evaluate();
      stop = select(report);
    }
    clock.lap("evaluate");
    measure_ranks(report, f_.collective, traffic);
    report.device_bytes = comm_.max(device_bytes_in_use(device()));
    report.seconds = clock.seconds();
    if (round == 0) report.seconds["to_first_step"] = first_step_;
    write_report(report);
    done_ = report.round;
    if (config_.checkpoint_every > 0 && (last_round || stop || done_ % config_.checkpoint_every == 0))
      save_state(done_);
  }
  save_results(done_);
  return {done_, stop};
}

}  // namespace detail

RunSummary run_rounds(Federation& federation, bool resume) {
  return detail::Run(federation).train(resume);
}

}  // namespace fsllm
