// SPDX-License-Identifier: Apache-2.0
// What a run leaves on disk, and how it goes on from there.
#include <algorithm>
#include <iterator>

#include "fsllm/comm/gather.hpp"
#include "fsllm/comm/stall.hpp"
#include "fsllm/core/counted.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/fed/mixture.hpp"
#include "fsllm/fed/settings_search.hpp"
#include "fsllm/io/files.hpp"
#include "partitions.hpp"
#include "run.hpp"

namespace fsllm::detail {

RunState::RunState(Federation const& f, bool is_server) : selection(f.config.selection), record(f.record) {
  auto const& algorithm = f.config.algorithm;
  server.weights = clone(f.parameters);
  std::erase_if(server.weights, [&](auto const& each) { return algorithm.is_local(each.first); });
  if (algorithm.server_extra) server.extra = algorithm.server_extra(server.weights);
  if (is_server) server_step = algorithm.server_step(server.weights);
}

/// What a server takes from a checkpoint.
void Run::restore_server(Checkpoint& checkpoint) {
  auto &weights = state_.server.weights, &extra = state_.server.extra;
  check_same_layout(weights, checkpoint.tensors.at("global"), "checkpoint");
  copy_values(weights, checkpoint.tensors.at("global"));
  check_same_layout(extra, checkpoint.tensors["extra"], "checkpoint");
  copy_values(extra, checkpoint.tensors["extra"]);
  check_same_layout(f_.fixed, checkpoint.tensors["fixed"], "checkpoint");
  copy_values(f_.fixed, checkpoint.tensors["fixed"]);
  state_.best = checkpoint.tensors["best"];
  auto const old = checkpoint.texts.find("algorithm");
  FSLLM_CHECK(old == checkpoint.texts.end() || old->second.empty(),
              "the checkpoint of round {} holds the server's optimiser in the form of an earlier version. "
              "Continue with that version, or start the run anew with --overwrite.",
              checkpoint.round);
  state_.server_step->load_state(checkpoint.tensors["algorithm"]);
}

/// Collective: every server has its part of the newest checkpoint that is good, which rank 0 has found.
void Run::restore() {
  std::optional<FoundCheckpoint> found;
  if (writes()) found = find_newest_checkpoint(f_.directory.checkpoints());
  if (writes() && !found) {
    auto const folder = f_.directory.checkpoints();
    FSLLM_CHECK(
        !holds_checkpoint(folder),
        "no checkpoint in {} can be read (the warnings above name the damage). Restore one, or remove "
        "that folder to begin at round 0.",
        folder.string());
    rewind_logs(*f_.output, -1);
    if (holds_unfinished(f_.directory.root))
      log_info("no round had ended before the stop");
    else
      log_warning("no usable checkpoint in {}: the run starts from the beginning",
                  f_.directory.checkpoints().string());
  }
  if (writes() && found) {
    auto const& first = found->first;
    if (auto const record = first.texts.find("run"); record != first.texts.end() && f_.continued_record)
      state_.record = f_.continued_record(record->second, first.round);
    ended_ = is_ended(first);
    if (!ended_) rewind_logs(*f_.output, first.round);
    last_event_ = last_event(f_.directory.metrics());
    auto const tasks = last_event(f_.directory.metrics(), "tasks");
    if (!tasks.empty())
      examined_ = tasks.at("round").get<int64_t>(), tasks_ = tasks.at("tasks").get<TaskMetrics>();
  }
  auto const text = [&](char const* name) { return found ? found->first.texts[name] : std::string(); };
  std::string header = nlohmann::json{
      {"round", found ? found->first.round : 0},
      {"ended", ended_},
      {"folder", found ? found->folder.string() : ""},
      {"parts", found ? found->parts : 0},
      {"examined", examined_},
      {"best_round", text("best_round")},
      {"selection", text("selection")},
      {"schedule",
       text("schedule")}}.dump();
  f_.all_ranks().broadcast(header, 0);
  auto const facts = nlohmann::json::parse(header);
  state_.done = facts.at("round").get<int64_t>();
  ended_ = facts.at("ended").get<bool>();
  examined_ = facts.at("examined").get<int64_t>();
  if (state_.done == 0) return;
  state_.best_round = std::stoll(facts.at("best_round").get<std::string>());
  state_.selection.load_state(facts.at("selection").get<std::string>());
  if (auto const schedule = facts.at("schedule").get<std::string>(); !schedule.empty())
    state_.schedule = parse_schedule(schedule);
  Checkpoint checkpoint;
  if (server()) {
    if (!found)
      found = FoundCheckpoint{facts.at("folder").get<std::string>(), facts.at("parts").get<int>(), {}};
    checkpoint = own_checkpoint(*found, f_);
    restore_server(checkpoint);
  }
  broadcast(state_.server.weights, state_.server.extra);
  if (f_.received) f_.received(state_.server.extra);
  if (!f_.fixed.empty()) f_.collective.broadcast(f_.fixed, 0);
  if (overlay_) overlay_->load(checkpoint.tensors["overlay"]);
  restore_versions(checkpoint);
  if (config_.has_client_states()) restore_states(checkpoint);
  if (!ended_) log_info("continuing after round {}", state_.done);
}

/// Is nothing left to do after this checkpoint? The summary is the last file that a run writes.
bool Run::is_ended(Checkpoint const& checkpoint) const {
  Selection selection(config_.selection);
  selection.load_state(checkpoint.texts.at("selection"));
  bool const last = checkpoint.round >= config_.rounds || selection.stop();
  auto const result = f_.full_model ? f_.directory.model() : f_.directory.adapter();
  if (!last || !std::filesystem::exists(result) || !std::filesystem::exists(f_.directory.summary()))
    return false;
  auto const summary = nlohmann::json::parse(read_file(f_.directory.summary()), nullptr, false);
  return summary.is_object() && summary.value("round", nlohmann::json()) == checkpoint.round;
}

/// A set of values in the subfolder `name` of the run directory. Where values are parts, all servers call it.
void Run::save_as(std::string const& name, TensorMap const& values, ResultFacts const& facts) {
  if (!writes()) {
    if (has_parts()) f_.save({}, values, {}, {});
    return;
  }
  auto const made = f_.output->fresh_folder();
  f_.save(made, values, overlay_ ? overlay_->values() : TensorMap{}, facts);
  f_.output->move_in(made, name, {"adapter_config.json", "config.json"});
}

/// Collective: the clients' own states as the checkpoint lists them; files of rounds after it go.
void Run::restore_states(Checkpoint const& checkpoint) {
  std::vector<ClientStateFile> files;
  if (server()) {
    auto const listed = checkpoint.texts.find("client_states");
    if (listed != checkpoint.texts.end())
      for (auto const& file : nlohmann::json::parse(listed->second))
        files.push_back({file.at(0).get<int64_t>(), file.at(1).get<int64_t>(), file.at(2).get<uint64_t>()});
    if (writes()) state_rounds_ = state_files_in(f_.directory.root);
    // Those of an unfinished round have a use, or are written again.
    auto const last = checkpoint.round + (holds_unfinished(f_.directory.root) ? 1 : 0);
    if (writes()) remove_state_files([&](int64_t, int64_t round) { return round > last; });
  }
  files = all_gather(files, comm_);
  work_.restore_states(files);
}

/// The files of a client's state after a round, one of each rank that trains it.
std::vector<std::string> Run::state_file_names(int64_t client, int64_t round) const {
  std::vector<std::string> names;
  for (int rank = 0; rank < (f_.group ? f_.group->size() : 1); ++rank)
    names.push_back(state_file_name(client, round, rank));
  return names;
}

/// Rank 0: takes the names of the files that this round's clients will write.
void Run::own_state_files(RoundPlan const& plan) {
  std::vector<std::string> names;
  for (auto const& task : tasks(plan)) {
    std::ranges::copy(state_file_names(task.client, plan.round + 1), std::back_inserter(names));
    state_rounds_[task.client].insert(plan.round + 1);
  }
  f_.output->own(names);
  make_private_folder(f_.directory.root / "clients");
}

/// Rank 0.
void Run::remove_state_files(std::function<bool(int64_t client, int64_t round)> const& superfluous) {
  std::vector<std::string> names;
  for (auto& [client, rounds] : state_rounds_)
    std::erase_if(rounds, [&, id = client](int64_t round) {
      if (!superfluous(id, round)) return false;
      std::ranges::copy(state_file_names(id, round), std::back_inserter(names));
      return true;
    });
  if (!names.empty()) f_.output->remove(names);
}

/// Rank 0: of what no checkpoint can need any more.
void Run::remove_old_state_files() {
  auto const kept = checkpoint_rounds(f_.directory.checkpoints());
  auto const oldest = kept.empty() ? state_.done : kept.front();
  remove_state_files([&](int64_t client, int64_t round) {
    auto const& rounds = state_rounds_.at(client);
    auto const next = rounds.upper_bound(round);
    return next != rounds.end() && *next <= oldest;
  });
}

void Run::save_state() {
  auto const states =
      config_.has_client_states() ? work_.state_files(state_.done) : std::vector<ClientStateFile>{};
  if (!server() || (!writes() && !has_parts())) return;
  set_activity("writing a checkpoint");
  Checkpoint checkpoint;
  checkpoint.round = state_.done;
  checkpoint.tensors["global"] = state_.server.weights;
  checkpoint.tensors["extra"] = state_.server.extra;
  checkpoint.tensors["fixed"] = f_.fixed;
  save_versions(checkpoint);
  checkpoint.tensors["best"] = state_.best;
  checkpoint.tensors["algorithm"] = state_.server_step->state();
  if (overlay_) checkpoint.tensors["overlay"] = overlay_->values();
  checkpoint.texts = {{"config", f_.config_yaml},
                      {"selection", state_.selection.state()},
                      {"schedule", to_text(state_.schedule)},
                      {"best_round", std::to_string(state_.best_round)},
                      {"run", state_.record}};
  if (config_.has_client_states()) {
    auto listed = nlohmann::json::array();
    for (auto const& file : states) listed.push_back({file.client, file.round, file.checksum});
    checkpoint.texts["client_states"] = listed.dump();
  }
  if (writes()) {
    f_.output->check();
    if (f_.check_inputs) f_.check_inputs();
  }
  auto const keep_last = static_cast<int>(config_.keep_last);
  if (has_parts())
    save_checkpoint_parts(f_, checkpoint, keep_last);
  else
    save_checkpoint(*f_.output, "checkpoints", checkpoint, keep_last);
  if (writes()) remove_unfinished(*f_.output);
  if (writes() && config_.has_client_states()) remove_old_state_files();
  saved_ = state_.done;
  note_for_signals();
}

/// Collective: what an earlier start has of the round that comes next. The states of its clients count
/// already.
void Run::restore_unfinished() {
  auto earlier = load_unfinished(f_.directory.root, state_.done, f_.all_ranks());
  if (!earlier) return;
  if (!earlier->states.empty()) work_.restore_states(earlier->states);
  work_.go_on(std::move(*earlier));
}

/// Collective: the turns of the round under way that have ended, or rest between two steps.
void Run::save_unfinished() {
  auto const& work = work_.unfinished();
  if (!work) return;
  set_activity("saving the unfinished round");
  auto const states =
      config_.has_client_states() ? work_.state_files(state_.done + 1) : std::vector<ClientStateFile>{};
  detail::save_unfinished(writes() ? f_.output : nullptr, f_.directory.root, state_.done, *work, states,
                          f_.all_ranks());
  unfinished_saved_ = true;
}

/// What SIGINT, SIGTERM and SIGUSR1 print.
void Run::note_for_signals() const {
  auto const state =
      saved_ > 0 ? fmt::format("the newest checkpoint is that of round {}; continue with --resume", saved_)
                 : std::string("no round has ended yet; start it again with --resume");
  set_signal_note(writes() ? fmt::format("stopping after this step ({})", state) : "", OnSignal::deferred);
}

/// The state of the last whole round.
RunSummary Run::save_interrupted() {
  if (state_.done > saved_) save_state();
  save_unfinished();
  if (writes())
    log_warning("stopped {}: {} rounds are saved{}",
                deadline_has_come() ? "before the job's time limit" : "by a signal", saved_,
                saved_ > 0 || unfinished_saved_ ? ", continue with --resume" : "");
  return {state_.done, false, true, saved_ > 0 || unfinished_saved_};
}

/// All components, and how each client weighs them.
void Run::save_mixture(std::string const& folder, ClientStates& states,
                       std::vector<ClientStateFile> const& clients) {
  for (int64_t m = 0; m < algorithm_.components; ++m)
    save_as(fmt::format("{}/component_{}", folder, m + 1), component_of(state_.server, m),
            {state_.done, last_event_});
  nlohmann::ordered_json weights;
  for (auto const& file : clients) {
    auto const mixture = states.find(file.client)->own.at(kMixture).contiguous();
    auto const* values = mixture.const_data_ptr<double>();
    weights[fmt::format("client_{:05d}", file.client)] =
        std::vector<double>(values, values + mixture.numel());
  }
  f_.output->write(folder + "/mixture.json", weights.dump(2) + "\n");
}

void Run::save_results() {
  auto const own = algorithm_.personal ? work_.state_files(state_.done) : std::vector<ClientStateFile>{};
  if (!server()) return;
  set_activity("writing the results");
  if (writes() && f_.check_inputs) f_.check_inputs();
  auto const out = f_.full_model ? f_.directory.model() : f_.directory.adapter();
  auto const name = out.filename().string();
  if (!algorithm_.personal || algorithm_.keeps_model)
    save_as(name, state_.server.weights, {state_.done, last_event_});
  if (overlay_) {
    auto const made = f_.output->fresh_folder();
    f_.save_merged(made, out);
    f_.output->move_in(made, f_.directory.model().filename().string(), {"config.json"});
  }
  ClientStates states(f_.directory.root, f_.group ? f_.group->rank() : 0);
  states.restore(own);
  for (auto const& file : own)
    save_as(fmt::format("{}/client_{:05d}", name, file.client),
            own_parameters(algorithm_, state_.server, states.find(file.client)->own),
            {.round = state_.done, .losses = last_event_, .of_client = true});
  if (!writes()) return;
  if (algorithm_.components > 1) save_mixture(name, states, own);
  auto summary = last_event_;
  summary["event"] = "end";
  summary["stopped_early"] = state_.selection.stop();
  if (state_.best_round > 0)
    summary.update({{"best_round", state_.best_round}, {"best_loss", state_.selection.best()}});
  if (!average_.is_null()) summary["swa"] = average_;
  if (!algorithm_.searched.empty())
    summary["searched"] = likeliest_settings(algorithm_.searched, state_.server);
  if (examined_ == state_.done) summary["tasks"] = tasks_;
  summary["ranks"] = f_.all_ranks().size();
  metrics_->write(summary);
  f_.output->write("summary.json", summary.dump(2) + "\n");
  log_info("{} done; the result lies in {}", counted(state_.done, "round"), out.string());
  auto const& chosen = f_.config.selection;
  if (state_.selection.stop() && state_.done < f_.config.rounds)
    log_info("stopped before round {}: {} has not become better for {} evaluations (early_stop.patience)",
             f_.config.rounds, chosen.best_key, chosen.patience);
  if (state_.best_round > 0 && state_.best_round < state_.done)
    log_info("best by {}: round {} ({:.4f}), which lies in {}", chosen.best_key, state_.best_round,
             state_.selection.best(), f_.directory.best().string());
}

}  // namespace fsllm::detail
