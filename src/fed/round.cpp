// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/round.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/device_memory.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/io/checksum.hpp"
#include "fsllm/io/files.hpp"
#include "not_finite.hpp"
#include "run.hpp"

namespace fsllm {
namespace detail {
namespace {

std::unique_ptr<Aggregation> make_aggregation(Federation const& f, TensorMap const& all, int64_t round) {
  auto const& algorithm = f.config.algorithm;
  auto const weights = trained_part(algorithm, all, round);
  auto const layout_of = [&](FedAlgorithm::Layout const& layout) {
    return layout ? layout(weights) : TensorMap{};
  };
  Message const layout{layout_of(algorithm.averaged), layout_of(algorithm.summed), {}};
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
}

/// Collective: what this round's clients began with is still the same on every rank.
void Run::check_same_state(int64_t round) const {
  uint64_t own = 0;
  for (auto const* part : {&state_.server.weights, &state_.server.extra})
    for (auto const& [name, tensor] : *part) {
      auto const values = tensor.detach().cpu().contiguous();
      auto const sum = checksum64({static_cast<std::byte const*>(values.const_data_ptr()), values.nbytes()});
      own = own * 31 + sum;
    }
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
  if (server()) state_.server_step->step(state_.server, arrived, plan);
  broadcast(state_.server);
}

/// Collective.
void Run::broadcast(ServerState& state) {
  f_.collective.broadcast(state.weights, 0);
  if (!state.extra.empty()) f_.collective.broadcast(state.extra, 0);
  if (overlay_) overlay_->add(state.base_change);
  state.base_change.clear();
}

/// Before the global state moves on from that of `round`: of the versions so far those stay that turns at
/// work began with.
void Run::keep_versions(int64_t round) {
  auto const used = versions_in_use(config_.asyn, state_.schedule.clock, round + 1);
  auto const is_used = [&](int64_t version) { return std::ranges::binary_search(used, version); };
  std::erase_if(state_.earlier, [&](auto const& each) { return !is_used(each.first); });
  if (!is_used(round)) return;
  auto& kept = state_.earlier[round] = {clone(state_.server.weights), clone(state_.server.extra)};
  if (f_.rest_on_host) kept = {moved(kept.weights, at::kCPU), moved(kept.extra, at::kCPU)};
}

/// Evaluates, and records the loss that decides.
void Run::judge(RoundReport& report) {
  report.losses = work_.evaluate(state_.server, report.round);
  note_losses(config_, report.losses, state_.schedule);
  auto const split = config_.selection.best_key.starts_with("val") ? "val" : "test";
  auto const found = report.losses.find(split);
  if (found == report.losses.end()) return;
  auto const loss = total(found->second);
  if (loss.targets == 0) return;
  report.best = state_.selection.observe(loss.sum / static_cast<double>(loss.targets));
  if (!report.best || algorithm_.personal) return;
  state_.best_round = report.round;
  if (!server()) return;
  state_.best = clone(state_.server.weights);
  if (f_.rest_on_host) state_.best = moved(state_.best, at::kCPU);
  save_as("best", state_.best);
}

/// Collective: judges the mean of global weights, and leaves it beside the result.
void Run::judge_average() {
  if (algorithm_.averages_from == 0) return;
  auto const average = server() ? state_.server_step->average() : WeightAverage{};
  auto const models = comm_.max(average.models);
  if (models == 0) {
    log_warning("fedswa: the run ended after {} rounds, before the first whose weights go into the mean ({})",
                state_.done, algorithm_.averages_from);
    return;
  }
  auto mean = state_.server;
  mean.weights = clone(server() ? average.weights : mean.weights);
  f_.collective.broadcast(mean.weights, 0);
  auto const losses = who_.splits.empty() ? ClientLosses{} : work_.evaluate(mean, state_.done);
  if (!server()) return;
  save_as(f_.directory.average().filename().string(), mean.weights);
  average_ = to_json(losses);
  average_["models"] = models;
  if (!losses.empty()) append_to_file(f_.directory.eval_results(), average_result_line(losses, state_.done));
}

void Run::write_report(RoundReport const& report) {
  if (!server()) return;
  f_.output->check();
  for (auto const& line : client_lines(report)) client_metrics_->write(line);
  metrics_->write(last_event_ = to_json(report));
  append_to_file(f_.directory.eval_results(), eval_result_lines(report));
  log_info("{}", round_line(report, config_.rounds));
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
  if (server() && !state_.record.empty()) f_.output->write("run.json", state_.record + "\n");
  note_for_signals();
  if (server()) {
    metrics_ = std::make_unique<JsonlWriter>(f_.directory.metrics());
    client_metrics_ = std::make_unique<JsonlWriter>(f_.directory.client_metrics());
  }
  if (state_.done == 0 && algorithm_.begin) {
    if (server()) algorithm_.begin(state_.server);
    broadcast(state_.server);
  }
  if (state_.done > 0 || who_.splits.empty()) return true;
  RoundReport start;
  start.losses = work_.evaluate(state_.server, 0);
  note_losses(config_, start.losses, state_.schedule);
  check_first_losses(start.losses, f_.model);
  write_report(start);
  return true;
}

RoundReport Run::train_round(int64_t round) {
  PhaseClock clock;
  auto const traffic = f_.collective.traffic();
  auto const aggregation = make_aggregation(f_, state_.server.weights, round);
  auto schedule = state_.schedule;
  auto const plan = work_.plan(round, state_.server, schedule);
  if (config_.has_client_states()) {
    if (server()) own_state_files(plan);
    comm_.barrier();
  }
  RoundReport report;
  report.round = round + 1;
  report.arrivals = plan.arrivals;
  report.clients = work_.train(
      plan, [&](int64_t version) -> ServerState const& { return state_.version(version); }, *aggregation);
  if (work_.stopped()) return report;
  state_.schedule = std::move(schedule);
  check_steps(report.clients, report.round);
  check_same_state(report.round);
  clock.lap("train");
  if (algorithm_.kind != Kind::none) serve(aggregation->reduce(f_.collective), plan);
  report.facts = state_.server.facts;
  clock.lap("aggregate");
  if (!who_.splits.empty() &&
      (report.round == config_.rounds || report.round % config_.selection.eval_every == 0))
    judge(report);
  clock.lap("evaluate");
  measure_ranks(report, f_.collective, traffic);
  report.device_bytes = comm_.max(device_bytes_in_use(work_.device()));
  report.seconds = clock.seconds();
  if (round == 0) report.seconds["to_first_step"] = work_.first_step();
  return report;
}

RunSummary Run::train(bool resume) {
  if (!begin(resume)) return {state_.done, state_.selection.stop()};
  auto const is_over = [&] { return state_.done >= config_.rounds || state_.selection.stop(); };
  while (!is_over()) {
    auto const report = train_round(state_.done);
    if (work_.stopped()) return save_interrupted();
    write_report(report);
    state_.done = report.round;
    if (config_.checkpoint_every > 0 && (is_over() || state_.done % config_.checkpoint_every == 0))
      save_state();
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
