// SPDX-License-Identifier: Apache-2.0
// What a run leaves on disk, and how it goes on from there.
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/io/files.hpp"
#include "run.hpp"

namespace fsllm::detail {

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
      if (auto const record = checkpoint.texts.find("run");
          record != checkpoint.texts.end() && f_.continued_record)
        record_ = f_.continued_record(record->second, checkpoint.round);
      ended_ = is_ended(checkpoint);
      if (!ended_) rewind_logs(*f_.output, checkpoint.round);
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
                                      {"ended", ended_},
                                      {"best_round", checkpoint.texts["best_round"]},
                                      {"selection", checkpoint.texts["selection"]}}
                           .dump();
  comm_.broadcast(header, 0);
  auto const facts = nlohmann::json::parse(header);
  done_ = facts.at("round").get<int64_t>();
  ended_ = facts.at("ended").get<bool>();
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
  if (!ended_) log_info("continuing after round {}", done_);
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

/// A set of values in the subfolder `name` of the run directory.
void Run::save_as(std::string const& name, TensorMap const& values) {
  auto const made = f_.output->fresh_folder();
  f_.save(made, values);
  f_.output->move_in(made, name, {"adapter_config.json", "config.json"});
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
                      {"best_round", std::to_string(best_round_)},
                      {"run", record_}};
  f_.output->check();
  if (f_.check_inputs) f_.check_inputs();
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
  if (f_.check_inputs) f_.check_inputs();
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

}  // namespace fsllm::detail
