// SPDX-License-Identifier: Apache-2.0
#include "fsllm/report/run_data.hpp"

#include <algorithm>
#include <fstream>

#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/json_text.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/shard.hpp"

namespace fsllm {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

std::vector<std::string> const kSplits{"val", "test", "val_unseen", "test_unseen"};

std::optional<double> number(Json const& object, std::string const& key) {
  if (!object.is_object() || !object.contains(key) || !object.at(key).is_number()) return {};
  return object.at(key).get<double>();
}

int64_t whole(Json const& object, std::string const& key) {
  return static_cast<int64_t>(std::clamp(number(object, key).value_or(0), -9e18, 9e18));
}

Json const& part(Json const& object, std::string const& key) {
  static Json const nothing = Json::object();
  return object.is_object() && object.contains(key) && object.at(key).is_object() ? object.at(key) : nothing;
}

std::map<std::string, double> numbers(Json const& object) {
  std::map<std::string, double> found;
  for (auto const& [key, value] : object.items())
    if (value.is_number()) found[key] = value.get<double>();
  return found;
}

/// Calls `take` for each whole JSON object of a file; other lines are counted in `problems`, but for a last
/// one without its end, which a run is writing.
template <class Take>
void for_each_line(fs::path const& file, std::vector<std::string>& problems, Take take) {
  auto const name = file.filename().string();
  bool const is_file = fs::is_regular_file(file);  // a pipe would wait for its other end
  std::ifstream in(is_file ? file : fs::path(), std::ios::binary);
  if (!in) {
    problems.push_back(fmt::format("{} {}", name,
                                   is_file            ? "cannot be read"
                                   : fs::exists(file) ? "is no regular file"
                                                      : "is missing"));
    return;
  }
  int64_t bad = 0, first_bad = 0, line_number = 0;
  for (std::string line; std::getline(in, line);) {
    ++line_number;
    bool const unfinished = in.eof();
    auto const event = json_depth(line) > kDeepestJson ? Json() : Json::parse(line, nullptr, false);
    bool const good = event.is_object() && event.contains("round") && event.at("round").is_number_integer() &&
                      event.at("round").template get<int64_t>() >= 0;
    if (good)
      take(event);
    else if (!unfinished && ++bad == 1)
      first_bad = line_number;
  }
  if (bad > 0)
    problems.push_back(fmt::format("{}: {} damaged {} left out, the first is line {}", name, bad,
                                   bad == 1 ? "line" : "lines", first_bad));
}

/// Reads one after the other; rounds that stand twice (a damaged file) count as they came last.
class Reader {
 public:
  explicit Reader(RunData& run) : run_(run) {}

  void read_rounds(fs::path const& file) {
    for_each_line(file, run_.problems, [&](Json const& event) { take_event(event); });
    for (auto& [round, facts] : rounds_) run_.rounds.push_back(std::move(facts));
  }

  void read_clients(fs::path const& file) {
    for_each_line(file, run_.problems, [&](Json const& line) { take_client(line); });
  }

  void read_ranks(fs::path const& file) {
    for_each_line(file, run_.problems, [&](Json const& line) {
      if (auto const time = number(line, "time")) {
        run_.began = std::min(run_.began.value_or(*time), *time);
        run_.ended = std::max(run_.ended.value_or(*time), *time);
      }
      auto& rank = run_.ranks[whole(line, "rank")];
      rank.turns += whole(line, "turns");
      rank.tokens += whole(line, "tokens");
      rank.peak_rss_bytes = std::max(rank.peak_rss_bytes, whole(line, "peak_rss_bytes"));
      for (auto const& [phase, seconds] : numbers(part(line, "seconds"))) rank.seconds[phase] += seconds;
    });
  }

 private:
  std::optional<double> loss_of(Json const& split) {
    if (auto const of_tokens = number(split, "loss_per_token")) return of_tokens;
    auto const of_pairs = number(split, "loss_per_pair");
    if (of_pairs) run_.loss_name = "loss_per_pair";
    return of_pairs;
  }

  void take_event(Json const& event) {
    auto const kind = event.value("event", Json());
    auto const round = whole(event, "round");
    if (kind == "tasks") {
      auto& tasks = facts_of(round).tasks;
      for (auto const& [task, metrics] : part(event, "tasks").items())
        for (auto const& [metric, value] : numbers(metrics)) tasks[task + " " + metric] = value;
      facts_of(round).seconds["tasks"] = number(part(event, "seconds"), "tasks").value_or(0);
      return;
    }
    if (kind != "start" && kind != "round") return;
    auto& facts = facts_of(round) = RoundFacts{};
    facts.round = round;
    auto splits = kSplits;
    splits.emplace_back("train");
    for (auto const& split : splits) {
      auto const& json = part(event, split);
      if (auto const loss = loss_of(json)) facts.losses[split] = *loss;
      auto const& spread = part(part(json, "quantiles"), run_.loss_name);
      if (auto const values = numbers(spread); values.size() >= 5)
        facts.spread[split] = {values.at("min"), values.at("p10"), values.at("p50"), values.at("p90"),
                               values.at("max")};
    }
    facts.seconds = numbers(part(event, "seconds"));
    facts.tokens_per_second = number(event, "tokens_per_second");
    facts.aggregation_error = number(event, "aggregation_error");
    facts.clients = whole(part(event, "train"), "clients");
    facts.tokens = whole(part(event, "train"), "tokens");
    facts.bytes_up = whole(event, "bytes_up");
    facts.bytes_down = whole(event, "bytes_down");
    facts.peak_rss_bytes = whole(event, "peak_rss_bytes");
    facts.device_bytes = whole(event, "device_bytes");
    facts.best = event.value("best", Json()) == true;
  }

  RoundFacts& facts_of(int64_t round) {
    auto& facts = rounds_[round];
    facts.round = round;
    return facts;
  }

  void take_client(Json const& line) {
    auto const id = whole(line, "client");
    auto& client = run_.clients[id];
    if (line.contains("train")) {
      run_.turns.emplace_back(whole(line, "round"), id);
      ++client.turns;
      client.train_loss = loss_of(part(line, "train"));
      client.seconds += number(part(line, "train"), "seconds").value_or(0);
    }
    for (auto const& split : kSplits)
      if (auto const loss = loss_of(part(line, split)))
        client.losses.try_emplace(split, *loss, *loss).first->second.second = *loss;
  }

  RunData& run_;
  std::map<int64_t, RoundFacts> rounds_;
};

void read_config(RunData& run) {
  auto const file = run.folder / "config.yaml";
  try {
    auto const config = Config::parse(read_file(file), file.string());
    for (auto const& key : config.given_keys()) run.config.emplace_back(key, config.text(key).value_or(""));
  } catch (Error const& error) {
    run.problems.push_back(error.what());
  }
}

/// The counts of each client's rows, where the folder of the shards is still there.
void read_split(RunData& run) {
  auto folder = run.folder / "shards";
  if (auto const given = run.setting("data.shards"); !given.empty()) folder = given;
  if (!fs::exists(folder / "index.json")) {
    run.problems.push_back(fmt::format("{} is not there: nothing is known of the clients' rows",
                                       (folder / "index.json").string()));
    return;
  }
  try {
    for (auto const& shard : read_shard_index(folder).clients) {
      if (shard.client_id == 0) continue;
      auto& client = run.clients[shard.client_id];
      client.train_rows = shard.train.rows;
      client.train_tokens = shard.train.tokens;
      client.val_rows = shard.val.rows;
      client.test_rows = shard.test.rows;
    }
  } catch (Error const& error) {
    run.problems.push_back(error.what());
  }
}

Json read_if_there(RunData& run, char const* name, bool needed) {
  auto const file = run.folder / name;
  if (!fs::exists(file)) {
    if (needed) run.problems.push_back(fmt::format("{} is missing", name));
    return Json();
  }
  try {
    return Json(read_json(file));
  } catch (Error const& error) {
    run.problems.push_back(error.what());
    return Json();
  }
}

}  // namespace

std::string RunData::setting(std::string const& key) const {
  auto const found = std::ranges::find(config, key, &std::pair<std::string, std::string>::first);
  return found == config.end() ? "" : found->second;
}

RunData read_run_data(fs::path const& folder) {
  FSLLM_CHECK(fs::is_directory(folder), "{} is no run directory ({}). Give outdir/expname of a run.",
              folder.string(), fs::exists(folder) ? "it is not a folder" : "there is no such folder");
  FSLLM_CHECK(fs::exists(folder / "config.yaml") && fs::exists(folder / "metrics.jsonl"),
              "{} holds no run to report on (no {} there). Give outdir/expname of a run that has begun.",
              folder.string(), fs::exists(folder / "config.yaml") ? "metrics.jsonl" : "config.yaml");
  RunData run;
  run.folder = folder;
  auto const whole_path = fs::weakly_canonical(folder);
  run.name = whole_path.filename().string();
  read_config(run);
  if (auto const rounds = run.setting("federate.total_round_num"); !rounds.empty())
    run.planned_rounds = std::atoll(rounds.c_str());
  Reader reader(run);
  reader.read_rounds(folder / "metrics.jsonl");
  reader.read_clients(folder / "metrics_clients.jsonl");
  reader.read_ranks(folder / "metrics_ranks.jsonl");
  read_split(run);
  auto const summary = read_if_there(run, "summary.json", false);
  run.finished = whole(summary, "round") == run.done() && summary.is_object();
  run.stopped_early = summary.is_object() && summary.value("stopped_early", Json()) == true;
  run.best_round = whole(summary, "best_round");
  auto const record = read_if_there(run, "run.json", true);
  if (record.is_object() && record.contains("computed_on")) run.environment = record.at("computed_on");
  return run;
}

std::vector<std::string> held_out_splits(RunData const& run) {
  std::vector<std::string> found;
  for (auto const& split : kSplits)
    if (std::ranges::any_of(run.rounds, [&](auto const& round) { return round.losses.contains(split); }))
      found.push_back(split);
  return found;
}

std::optional<std::pair<int64_t, double>> best_loss(RunData const& run) {
  auto const splits = held_out_splits(run);
  std::optional<std::pair<int64_t, double>> best;
  if (splits.empty()) return best;
  for (auto const& round : run.rounds) {
    auto const loss = round.losses.find(splits.front());
    if (round.round > 0 && loss != round.losses.end() && (!best || loss->second < best->second))
      best = {round.round, loss->second};
  }
  return best;
}

double seconds_in(RunData const& run, std::string const& phase) {
  double sum = 0;
  for (auto const& round : run.rounds)
    for (auto const& [name, seconds] : round.seconds)
      if (name == phase || (phase.empty() && name != "to_first_step")) sum += seconds;
  return sum;
}

}  // namespace fsllm
