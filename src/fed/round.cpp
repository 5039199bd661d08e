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
#include "fsllm/core/metrics.hpp"
#include "fsllm/core/process.hpp"
#include "fsllm/core/progress.hpp"
#include "fsllm/fed/aggregate.hpp"
#include "fsllm/fed/evaluate.hpp"
#include "fsllm/fed/personal.hpp"
#include "fsllm/fed/plan.hpp"
#include "fsllm/fed/report.hpp"
#include "fsllm/fed/selection.hpp"
#include "fsllm/io/checkpoint.hpp"
#include "fsllm/io/files.hpp"
#include "not_finite.hpp"
#include "participants.hpp"
#include "stop.hpp"

namespace fsllm {
namespace {

/// The run between two rounds: what a checkpoint holds, and the fixed facts that follow from the
/// configuration.
class Run {
 public:
  explicit Run(Federation& federation);
  RunSummary train(bool resume);

 private:
  bool local() const { return config_.method == "local"; }
  bool server() const { return comm_.rank() == 0; }
  std::vector<std::vector<int64_t>> place(std::vector<int64_t> const& clients) const;
  void restore();
  TensorMap const& start_of(int64_t client) const;
  at::Device device() const { return f_.parameters.begin()->second.device(); }
  TensorMap kept(TensorMap const& values) const;
  TensorMap layout_of_kept() const;
  void end_turn();
  ClientReport train_client_here(int64_t client, int64_t round, double weight, Aggregation& aggregation,
                                 Progress& progress);
  std::vector<ClientReport> train_round(int64_t round, Aggregation& aggregation);
  ClientLosses evaluate();
  ClientLosses evaluate_all();
  bool select(RoundReport& report);
  void write_report(RoundReport const& report);
  void save_as(std::string const& name, TensorMap const& values);
  void save_state(int64_t rounds_done);
  void save_results(int64_t rounds_done);
  void note_for_signals() const;
  void save_interrupted();

  Federation& f_;
  FedConfig const& config_;
  Communicator const& comm_;
  std::vector<int64_t> clients_;             ///< that take part
  std::vector<int64_t> unseen_, trained_;    ///< those that only evaluate, and the others
  std::vector<std::vector<int64_t>> owned_;  ///< clients of each rank for evaluation and personal state
  std::vector<std::string> splits_;          ///< splits that hold rows
  TensorMap global_, best_;
  PersonalStates personal_;
  std::unique_ptr<FedAlgorithm> algorithm_;
  Selection selection_;
  std::unique_ptr<JsonlWriter> metrics_;
  int64_t done_ = 0, best_round_ = 0;
  int64_t saved_ = 0;                  ///< rounds that the newest checkpoint holds
  bool stopped_ = false;               ///< by a signal, on any rank
  double first_step_ = 0;              ///< seconds from the start of the process to the end of its first step
  nlohmann::ordered_json last_event_;  ///< in metrics.jsonl
};

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

void Run::restore() {
  Checkpoint checkpoint;
  if (server()) {
    auto found = load_newest_checkpoint(f_.directory.checkpoints());
    if (found) {
      checkpoint = std::move(*found);
      check_same_layout(global_, checkpoint.tensors.at("global"), "checkpoint");
      copy_values(global_, checkpoint.tensors.at("global"));
      best_ = checkpoint.tensors["best"];
      algorithm_->load_state(checkpoint.texts.at("algorithm"));
      rewind_logs(*f_.output, checkpoint.round);
      last_event_ = last_event(f_.directory.metrics());
    } else {
      auto const folder = f_.directory.checkpoints();
      FSLLM_CHECK(
          !holds_checkpoint(folder),
          "no checkpoint in {} can be read (the warnings above name the damage). Restore one, or remove "
          "that folder to begin at round 0.",
          folder.string());
      rewind_logs(*f_.output, -1);
      log_warning("no usable checkpoint in {}: the run starts from the beginning",
                  f_.directory.checkpoints().string());
    }
  }
  std::string header = nlohmann::json{{"round", checkpoint.round},
                                      {"best_round", checkpoint.texts["best_round"]},
                                      {"selection", checkpoint.texts["selection"]}}
                           .dump();
  comm_.broadcast(header, 0);
  auto const facts = nlohmann::json::parse(header);
  done_ = facts.at("round").get<int64_t>();
  if (done_ == 0) return;
  best_round_ = std::stoll(facts.at("best_round").get<std::string>());
  selection_.load_state(facts.at("selection").get<std::string>());
  f_.collective.broadcast(global_, 0);
  if (local()) {
    PersonalStates all;
    for (int64_t const client : trained_)
      if (server()) all.emplace(client, checkpoint.tensors.at("client_" + std::to_string(client)));
    personal_ = scatter_personal(all, layout_of_kept(), owned_[static_cast<size_t>(comm_.rank())], comm_);
  }
  log_info("continuing after round {}", done_);
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

/// A set of values in the subfolder `name` of the run directory.
void Run::save_as(std::string const& name, TensorMap const& values) {
  auto const made = f_.output->fresh_folder();
  f_.save(made, values);
  f_.output->move_in(made, name, {"adapter_config.json", "config.json"});
}

void Run::write_report(RoundReport const& report) {
  if (!server()) return;
  f_.output->check();
  metrics_->write(last_event_ = to_json(report));
  append_to_file(f_.directory.eval_results(), eval_result_lines(report));
  log_info("{}", round_line(report, config_.rounds));
}

void Run::save_state(int64_t rounds_done) {
  auto const personal = local() ? gather_personal(personal_, layout_of_kept(), comm_) : PersonalStates{};
  if (!server()) return;
  Checkpoint checkpoint;
  checkpoint.round = rounds_done;
  checkpoint.tensors["global"] = global_;
  checkpoint.tensors["best"] = best_;
  for (auto const& [client, state] : personal) checkpoint.tensors["client_" + std::to_string(client)] = state;
  checkpoint.texts = {{"config", f_.config_yaml},
                      {"algorithm", algorithm_->state()},
                      {"selection", selection_.state()},
                      {"best_round", std::to_string(best_round_)}};
  f_.output->check();
  save_checkpoint(*f_.output, "checkpoints", checkpoint, static_cast<int>(config_.keep_last));
  saved_ = rounds_done;
  note_for_signals();
}

/// What SIGINT and SIGTERM print.
void Run::note_for_signals() const {
  auto const state =
      saved_ > 0 ? fmt::format("the newest checkpoint is that of round {}; continue with --resume", saved_)
                 : std::string("there is no checkpoint yet; --resume begins at round 0");
  set_signal_note(server() ? fmt::format("stopping after this step ({})", state) : "", OnSignal::deferred);
}

/// The state of the last whole round. A client of method local that went on since has no such state any more.
void Run::save_interrupted() {
  if (done_ > saved_ && !local()) save_state(done_);
  if (server())
    log_warning("stopped by a signal: {} rounds are saved{}", saved_,
                saved_ > 0 ? ", continue with --resume" : "");
}

void Run::save_results(int64_t rounds_done) {
  auto const personal = local() ? gather_personal(personal_, layout_of_kept(), comm_) : PersonalStates{};
  if (!server()) return;
  auto const out = f_.full_model ? f_.directory.model() : f_.directory.adapter();
  auto const name = out.filename().string();
  if (!local()) save_as(name, global_);
  for (auto const& [client, state] : personal) save_as(fmt::format("{}/client_{:05d}", name, client), state);
  auto summary = last_event_;
  summary["event"] = "end";
  summary["stopped_early"] = selection_.stop();
  if (best_round_ > 0) summary.update({{"best_round", best_round_}, {"best_loss", selection_.best()}});
  summary["ranks"] = comm_.size();
  metrics_->write(summary);
  f_.output->write("summary.json", summary.dump(2) + "\n");
  log_info("{} rounds done; the result lies in {}", rounds_done, out.string());
}

RunSummary Run::train(bool resume) {
  if (resume) restore();
  saved_ = done_;
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

}  // namespace

RunSummary run_rounds(Federation& federation, bool resume) {
  return Run(federation).train(resume);
}

}  // namespace fsllm
