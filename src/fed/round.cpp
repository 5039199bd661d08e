// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/round.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/device_memory.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/curves.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "not_finite.hpp"
#include "run.hpp"

namespace fsllm {
namespace detail {
namespace {

std::unique_ptr<Aggregation> make_aggregation(Federation const& f, TensorMap const& all,
                                              RoundPlan const& plan) {
  auto const& algorithm = f.config.algorithm;
  auto const weights = trained_part(algorithm, all, plan.round);
  auto const layout_of = [&](FedAlgorithm::Layout const& layout) {
    return layout ? layout(weights) : TensorMap{};
  };
  Message layout{layout_of(algorithm.averaged), layout_of(algorithm.summed), {}};
  if (algorithm.planned_sums) layout.sum.merge(algorithm.planned_sums(plan));
  auto const bits = static_cast<int>(f.config.fixed_point_bits);
  if (algorithm.kind == Kind::gather) return make_gathering(weights, algorithm);
  if (algorithm.second) return make_two_sums(layout, weights, *algorithm.second, bits);
  bool const exact = f.config.reduce == "exact" || (f.config.reduce == "auto" && !f.full_model);
  return exact ? make_exact_aggregation(layout, bits) : make_native_aggregation(layout);
}

}  // namespace

Run::Run(Federation& federation)
    : f_(federation),
      config_(federation.config),
      algorithm_(config_.algorithm),
      comm_(federation.collective.communicator()),
      who_(federation),
      work_(federation, who_),
      state_(federation, server()) {
  if (!algorithm_.changes_base) return;
  std::vector<std::string> modules;
  for (auto const& target : f_.lora.targets) modules.push_back(target.module);
  overlay_ = std::make_unique<Overlay>(f_.model, modules, comm_);
  work_.set_overlay(overlay_.get());
}

namespace {

uint64_t checksum_of(TensorMap const& tensors, uint64_t sum = 0) {
  for (auto const& [name, tensor] : tensors) {
    auto const values = tensor.detach().cpu().contiguous();
    sum = sum * 31 + checksum64({static_cast<std::byte const*>(values.const_data_ptr()), values.nbytes()});
  }
  return sum;
}

}  // namespace

/// Collective: what this round's clients began with is still the same on every rank.
void Run::check_same_state(int64_t round) const {
  uint64_t own = 0;
  for (auto const* part : {&state_.server.weights, &state_.server.extra, &std::as_const(f_.fixed)})
    own = checksum_of(*part, own);
  auto const all = all_gather(std::vector{own}, comm_);
  for (size_t rank = 1; rank < all.size(); ++rank)
    FSLLM_CHECK(all[rank] == all[0],
                "round {}: the global state of rank {} is not that of rank 0 (memory or network of its node "
                "are at fault, or "
                "this program). Continue with --resume, without that node.",
                round, rank);
}

/// Rank 0 moves the global state, which every rank then has.
void Run::serve(Message const& arrived, RoundPlan const& plan) {
  set_activity("moving the global state");
  keep_versions(plan.round);
  auto const resting = [&] {
    auto rest = state_.server.weights;
    for (auto const& [name, tensor] : trained_part(algorithm_, rest, plan.round)) rest.erase(name);
    return checksum_of(rest);
  };
  bool const rests = bool(algorithm_.rests);
  auto const before = rests && server() ? resting() : 0;
  if (server()) state_.server_step->step(state_.server, arrived, plan);
  bool const moved = !rests || comm_.any(server() && resting() != before);
  publish(moved ? state_.server.weights : trained_part(algorithm_, state_.server.weights, plan.round));
}

/// Collective: the global state of rank 0, of whose weights `changed` may differ from the other ranks', is
/// that of every rank, and of the frozen matrices.
void Run::publish(TensorMap changed) {
  broadcast(changed, state_.server.extra);
  for (auto const& [name, tensor] : changed) state_.server.weights[name] = tensor;
  if (f_.received) f_.received(state_.server.extra);
  if (overlay_) overlay_->add(state_.server.base_change);
  state_.server.base_change.clear();
}

/// Collective.
void Run::broadcast(TensorMap& weights, TensorMap& extra) {
  f_.collective.broadcast(weights, 0);
  if (!extra.empty()) f_.collective.broadcast(extra, 0);
}

/// Rank 0: metrics that later lines are added to, and TensorBoard's file with those of earlier starts.
void Run::open_logs() {
  metrics_ = std::make_unique<JsonlWriter>(f_.directory.metrics());
  client_metrics_ = std::make_unique<JsonlWriter>(f_.directory.client_metrics());
  rank_metrics_ = std::make_unique<JsonlWriter>(f_.directory.rank_metrics());
  f_.output->own({RunDirectory::kCurves});
  make_folder((f_.directory.root / RunDirectory::kCurves).parent_path());
  f_.output->write(RunDirectory::kCurves, curves_of_run(f_.directory, unix_time()));
}

void Run::write_event(nlohmann::ordered_json const& event, double time) {
  metrics_->write(event);
  append_to_file(f_.directory.root / RunDirectory::kCurves, curve_records(event, time));
}

void Run::write_report(RoundReport const& report) {
  if (!writes()) return;
  f_.output->check();
  double const time = unix_time();
  for (auto const& line : client_lines(report)) client_metrics_->write(line);
  for (auto const& line : rank_lines(report, time)) rank_metrics_->write(line);
  write_event(last_event_ = to_json(report), time);
  append_to_file(f_.directory.eval_results(), eval_result_lines(report));
  log_info("{}", round_line(report, config_.rounds, seconds_left(report.round)));
}

/// By the mean of this process's rounds; an early stop may come before.
std::optional<double> Run::seconds_left(int64_t done) const {
  if (done <= first_ || done >= config_.rounds) return {};
  double const spent = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  return spent / static_cast<double>(done - first_) * static_cast<double>(config_.rounds - done);
}

/// Everything before the first round of this process; false where nothing is left to do.
bool Run::begin(bool resume) {
  if (resume) restore();
  saved_ = state_.done;
  if (ended_) {
    log_info(
        "the run has ended after {} rounds; nothing is left to do. Raise federate.total_round_num to "
        "go on, or choose another expname.",
        state_.done);
    return false;
  }
  if (writes() && !state_.record.empty() && f_.write_record) f_.write_record(state_.record, state_.done);
  note_for_signals();
  if (writes()) open_logs();
  if (state_.done == 0 && algorithm_.fix_factors) fix_factors();
  if (state_.done == 0 && algorithm_.begin) {
    if (server()) algorithm_.begin(state_.server);
    publish(state_.server.weights);
  }
  if (state_.done > 0 || who_.splits.empty()) return true;
  RoundReport start;
  PhaseClock clock;
  start.losses = work_.evaluate(state_.server, 0);
  clock.lap("evaluate");
  start.judged = f_.judged;
  note_losses(config_, start.losses, state_.schedule);
  check_first_losses(start.losses, f_.model);
  RankReport own;
  own.evaluate = clock.seconds().at("evaluate");
  measure_ranks(start, f_.collective, f_.collective.traffic(), own, f_.all_ranks());
  write_report(start);
  return true;
}

RoundReport Run::train_round(int64_t round) {
  PhaseClock clock;
  auto const traffic = f_.collective.traffic();
  auto const in_group = [&] { return f_.group ? f_.group->collective().traffic().partition_bytes : 0; };
  int64_t const in_group_before = in_group();
  auto schedule = state_.schedule;
  auto const plan = work_.plan(round, state_.server, schedule);
  auto const aggregation = make_aggregation(f_, state_.server.weights, plan);
  if (config_.has_client_states()) {
    if (writes()) own_state_files(plan);
    f_.all_ranks().barrier();
  }
  RoundReport report;
  report.round = round + 1;
  report.arrivals = plan.arrivals;
  report.clients = work_.train(
      plan, [&](int64_t version) -> ServerState const& { return state_.version(version); }, *aggregation);
  if (work_.stopped()) return report;
  state_.schedule = std::move(schedule);
  check_steps(report.clients, report.round, config_.keep_optimizer);
  check_same_state(report.round);
  clock.lap("train");
  if (algorithm_.kind != Kind::none) serve(aggregation->reduce(f_.collective), plan);
  report.facts = state_.server.facts;
  clock.lap("aggregate");
  if (!who_.splits.empty() &&
      (report.round == config_.rounds || report.round % config_.selection.eval_every == 0))
    judge(report);
  clock.lap("evaluate");
  auto own = work_.own();
  own.wait = std::max(0.0, clock.seconds().at("train") - own.train);
  own.aggregate = clock.seconds().at("aggregate");
  own.evaluate = clock.seconds().at("evaluate");
  measure_ranks(report, f_.collective, traffic, own, f_.all_ranks());
  report.bytes_in_groups = f_.all_ranks().sum(in_group() - in_group_before);
  report.device_bytes = f_.all_ranks().max(device_bytes_in_use(work_.device()));
  report.seconds = clock.seconds();
  if (round == 0) report.seconds["to_first_step"] = work_.first_step();
  return report;
}

RunSummary Run::train(bool resume) {
  if (!begin(resume)) return {state_.done, state_.selection.stop()};
  if (state_.done > 0 && !examine()) return save_interrupted();  // where it was stopped in the tasks
  if (resume) restore_unfinished();
  began_ = std::chrono::steady_clock::now();
  first_ = state_.done;
  while (!is_over()) {
    auto const report = train_round(state_.done);
    if (work_.stopped()) return save_interrupted();
    write_report(report);
    state_.done = report.round;
    if (config_.checkpoint_every > 0 && (is_over() || state_.done % config_.checkpoint_every == 0))
      save_state();
    if (!examine()) return save_interrupted();
  }
  judge_average();
  save_results();
  return {state_.done, state_.selection.stop()};
}

}  // namespace detail

RunSummary run_rounds(Federation& federation, bool resume) {
  return detail::Run(federation).train(resume);
}

}  // namespace fsllm
