// SPDX-License-Identifier: Apache-2.0
// fsllm_sweep on a real small model: lists, runs, kills, tables, searches.
#include <fmt/core.h>
#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "bad_input.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

constexpr char const* kGrid =
    "grid:\n  train.optimizer.lr: [0.05, 0.5]\n  train.local_update_steps: [1, 2]\n";

class Sweeps : public testing::Test {
 protected:
  Sweeps() { write_base(3); }
  void write_base(int rounds) {
    SmallRun small;
    small.splits = "[0.6, 0.4, 0.0]";
    small.rounds = rounds;
    std::ofstream(dir_ / "base.yaml") << small.yaml(dir_ / "elsewhere");
  }
  void write_spec(std::string const& yaml) const {
    std::ofstream(dir_ / "sweep.yaml") << "base: base.yaml\noutdir: runs\n" << yaml;
  }
  Words words(Words more) const {
    more.insert(more.begin(), {"fsllm_sweep", (dir_ / "sweep.yaml").string()});
    return more;
  }
  Outcome sweep(Words more, int code = 0) const {
    auto outcome = run(dir_.path(), 0, words(std::move(more)));
    EXPECT_EQ(outcome.exit_code, code) << outcome.err << outcome.out;
    return outcome;
  }
  std::vector<json> list() const {
    std::vector<json> rows;
    std::istringstream lines(sweep({"list", "--json"}).out);
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
    return rows;
  }
  fs::path folder(json const& row) const { return dir_.path() / row.at("dir").get<std::string>(); }
  void expect_all_done(int rounds) const {
    for (auto const& row : list()) {
      EXPECT_EQ(row.at("state"), "done") << row;
      std::vector<int> seen;
      for (auto const& event : read_events(folder(row) / "metrics.jsonl"))
        if (event.at("event") == "round") seen.push_back(event.at("round").get<int>());
      std::vector<int> once(static_cast<size_t>(rounds));
      for (int r = 0; r < rounds; ++r) once[static_cast<size_t>(r)] = r + 1;
      EXPECT_EQ(seen, once) << row;
    }
  }
  /// The run beside the sweep's, by fsllm_hpc itself, has the same adapter.
  void expect_bits_of_a_plain_run(json const& row) const {
    fs::remove_all(dir_ / "plain");
    Words plain{"fsllm_hpc", "--cfg", (dir_ / "base.yaml").string(), "outdir", dir_.path().string(),
                "expname",   "plain"};
    for (auto const& [key, value] : row.at("keys").items()) plain.insert(plain.end(), {key, value.dump()});
    plain.insert(plain.end(), {"seed", row.at("seed").dump()});
    auto const outcome = run(dir_.path(), 0, plain);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const adapter = "adapter/adapter_model.safetensors";
    EXPECT_EQ(sha256_file(folder(row) / adapter), sha256_file(dir_ / "plain" / adapter)) << row;
  }
  /// Kills at different points of the sweep: waits until so many runs have a round.
  void wait_for_rounds(size_t runs) const {
    for (int i = 0; i < 3000; ++i) {
      size_t begun = 0;
      if (fs::exists(dir_ / "runs"))
        for (auto const& entry : fs::directory_iterator(dir_ / "runs"))
          begun += fs::exists(entry.path() / "metrics.jsonl") &&
                           read_text(entry.path() / "metrics.jsonl").find("\"round\":1") != std::string::npos
                       ? 1
                       : 0;
      if (begun >= runs) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    FAIL() << "no round within half a minute";
  }
  std::map<std::string, std::string> all_files() const {
    std::map<std::string, std::string> files;
    for (auto const& entry : fs::recursive_directory_iterator(dir_ / "runs"))
      if (entry.is_regular_file())
        files[entry.path().string()] =
            sha256_file(entry.path()) + std::to_string(entry.last_write_time().time_since_epoch().count());
    return files;
  }
  TempDir dir_, other_;  ///< the other is for what a second process says
};

std::vector<std::vector<std::string>> csv_rows(std::string const& text) {
  std::vector<std::vector<std::string>> rows;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    rows.emplace_back();
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, ',');) rows.back().push_back(cell);
    if (line.ends_with(',')) rows.back().emplace_back();
  }
  return rows;
}

TEST_F(Sweeps, ListsItsRuns) {
  write_spec(std::string(kGrid) + "seeds: [1, 2]\n");
  auto const rows = list();
  ASSERT_EQ(rows.size(), 8U);
  EXPECT_EQ(
      rows[0].dump(),
      R"({"dir":"runs/lr=0.05_local_update_steps=1_seed=1","index":0,"keys":{"train.local_update_steps":1,"train.optimizer.lr":0.05},"seed":1,"state":"pending"})");
  EXPECT_EQ(rows[1].at("seed"), 2);
  EXPECT_EQ(rows[2].at("keys").at("train.local_update_steps"), 2);
  EXPECT_EQ(rows[7].at("keys").at("train.optimizer.lr"), 0.5);
  EXPECT_FALSE(fs::exists(dir_ / "runs")) << "a list makes nothing";
  EXPECT_THAT(sweep({"list"}).out,
              testing::HasSubstr("0  pending  runs/lr=0.05_local_update_steps=1_seed=1\n"));
}

/// What keys.md says of tables, against numbers computed here from each run's own summary.
class SweepTables : public Sweeps {
 protected:
  struct Row {
    double mean = 0, deviation = 0;
  };
  std::vector<Row> expected() const {
    auto const rows = list();
    std::vector<Row> found;
    for (size_t s = 0; s < rows.size(); s += 2) {
      auto const loss = [&](size_t i) {
        return json::parse(read_text(folder(rows[i]) / "summary.json"))
            .at("val")
            .at("loss_per_token")
            .get<double>();
      };
      double const a = loss(s), b = loss(s + 1);
      found.push_back({(a + b) / 2, std::abs(a - b) / std::sqrt(2.0)});
    }
    return found;
  }
};

TEST_F(SweepTables, AreRightToTheLastDigit) {
  write_spec(std::string(kGrid) + "seeds: [1, 2]\n");
  auto const said = sweep({"run", "all", "--jobs", "2"}).out;
  EXPECT_THAT(said, testing::HasSubstr("run 7 of 8 (lr=0.5_local_update_steps=2_seed=2): done in "));
  expect_all_done(3);
  auto const before = all_files();
  sweep({"run", "all"});
  sweep({"run", "3"});
  EXPECT_EQ(all_files(), before) << "what is done is left alone to the byte";
  expect_bits_of_a_plain_run(list()[5]);

  auto const rows = expected();
  size_t best = 0;
  for (size_t i = 0; i < 4; ++i)
    if (rows[i].mean < rows[best].mean) best = i;
  auto const csv = csv_rows(sweep({"table", "--format", "csv"}).out);
  ASSERT_EQ(csv.size(), 5U);
  EXPECT_THAT(csv[0], testing::ElementsAre("train.optimizer.lr", "train.local_update_steps", "runs",
                                           "val.loss_per_token_mean", "val.loss_per_token_std"));
  auto const markdown = sweep({"table", "--format", "markdown"}).out,
             latex = sweep({"table", "--format", "latex"}).out;
  std::istringstream lines(markdown), tex(latex);
  std::string line, tex_line;
  for (int i = 0; i < 2; ++i) std::getline(lines, line);
  for (int i = 0; i < 4; ++i) std::getline(tex, tex_line);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(csv[i + 1][0], i < 2 ? "0.05" : "0.5");
    EXPECT_EQ(csv[i + 1][2], "2");
    EXPECT_NEAR(std::stod(csv[i + 1][3]), rows[i].mean, 1e-9);
    EXPECT_NEAR(std::stod(csv[i + 1][4]), rows[i].deviation, 1e-9);
    std::getline(lines, line);
    std::smatch parts;
    ASSERT_TRUE(std::regex_match(line, parts,
                                 std::regex(R"(\| (\S+) \| (\d) \| (\*\*)?([0-9.]+)(\*\*)? ± ([0-9.]+) \|)")))
        << line;
    EXPECT_EQ(parts[3].matched, i == best) << line;
    auto const decimals = static_cast<int>(parts[4].str().size() - parts[4].str().find('.') - 1);
    EXPECT_GE(decimals, 3);
    EXPECT_EQ(parts[4], fmt::format("{:.{}f}", rows[i].mean, decimals));
    EXPECT_EQ(parts[6], fmt::format("{:.{}f}", rows[i].deviation, decimals));
    std::getline(tex, tex_line);
    auto const mean = i == best ? "\\mathbf{" + parts[4].str() + "}" : parts[4].str();
    EXPECT_EQ(tex_line, fmt::format("{} & {} & ${} \\pm {}$ \\\\", parts[1].str(), parts[2].str(), mean,
                                    parts[6].str()));
  }
  EXPECT_THAT(latex, testing::HasSubstr(
                         "train.optimizer.lr & train.local\\_update\\_steps & val.loss\\_per\\_token \\\\"));
  EXPECT_THAT(latex, testing::AllOf(testing::StartsWith("\\begin{tabular}{lll}\n"),
                                    testing::EndsWith("\\end{tabular}\n")));

  auto const each = csv_rows(sweep({"table", "--long", "--format", "csv"}).out);
  ASSERT_EQ(each.size(), 9U);
  EXPECT_EQ(each[0][6], "bytes");
  EXPECT_EQ(each[1][7], sha256_file(folder(list()[0]) / "adapter/adapter_model.safetensors"));
  int64_t bytes = 0;
  for (auto const& event : read_events(folder(list()[0]) / "metrics.jsonl"))
    if (event.at("event") == "round")
      bytes += event.at("bytes_up").get<int64_t>() + event.at("bytes_down").get<int64_t>();
  EXPECT_EQ(each[1][6], std::to_string(bytes));
  EXPECT_TRUE(fs::exists(dir_ / each[1][8])) << each[1][8];
  EXPECT_THAT(sweep({"status"}).out, testing::StartsWith("8 runs: 8 done, 0 running, 0 pending, 0 failed\n"));

  sweep({"plot", "--out", (dir_ / "plot.svg").string()});
  auto const drawn = read_text(dir_ / "plot.svg");
  EXPECT_THAT(drawn, testing::StartsWith("<svg xmlns="));
  std::regex const curve("<polyline points=\"([^\"]*)\"");
  int curves = 0;
  for (std::sregex_iterator at(drawn.begin(), drawn.end(), curve), end; at != end; ++at, ++curves) {
    auto const points = (*at)[1].str();
    EXPECT_EQ(std::count(points.begin(), points.end(), ','), 4)
        << "a point a round, and one before the first";
  }
  EXPECT_EQ(curves, 4);
  EXPECT_EQ(drawn.find("http", 20 + drawn.find("xmlns")), std::string::npos) << "loads nothing";
}

TEST_F(SweepTables, SayWhatIsMissing) {
  write_spec("grid: {train.optimizer.lr: [0.05, 0.5]}\nseeds: [1, 2]\n");
  sweep({"run", "0"});
  sweep({"run", "2"});
  sweep({"run", "3"});
  auto const markdown = sweep({"table"}).out;
  EXPECT_THAT(markdown, testing::ContainsRegex("\\| 0.05 \\| [0-9.]+ \\(1 of 2 runs\\) \\|"));
  EXPECT_THAT(markdown, testing::ContainsRegex("\\| 0.5 \\| [*][*][0-9.]+[*][*] ± [0-9.]+ \\|"))
      << "the best of what is whole";
  EXPECT_THAT(markdown, testing::HasSubstr("1 of 4 runs are missing: 1 (pending)"));
  auto const csv = csv_rows(sweep({"table", "--format", "csv"}).out);
  EXPECT_EQ(csv[1][1], "1");
  EXPECT_EQ(csv[1][3], "") << "no deviation of one value";
}

TEST_F(Sweeps, KilledAnywhereItGoesOn) {
  write_base(6);
  write_spec(std::string(kGrid) + "seeds: [1, 2]\n");
  for (size_t const runs : {1, 3, 5}) {
    Background killed(dir_.path(), 0, words({"run", "all", "--jobs", "2"}));
    wait_for_rounds(runs);
    killed.kill_hard();
  }
  sweep({"run", "all", "--jobs", "2"});
  expect_all_done(6);
  auto const rows = list();
  for (size_t const i : {0, 3, 4}) expect_bits_of_a_plain_run(rows[i]);
}

TEST_F(Sweeps, TwoShareTheWork) {
  write_base(8);
  write_spec("grid: {train.optimizer.lr: [0.05, 0.5]}\nseeds: [1, 2]\n");
  sweep({"run", "0"});
  Background first(other_.path(), 0, words({"run", "all"}));
  wait_for_rounds(2);
  auto const second = sweep({"run", "all"}).out;
  EXPECT_THAT(second, testing::Not(testing::HasSubstr("failed")));
  EXPECT_EQ(first.ends_within(std::chrono::seconds(60)), 0);
  auto const both = second + read_text(other_ / "stdout.txt");
  std::regex const begins("run [1-3] of 4 [^\n]*: begins");
  EXPECT_EQ(std::distance(std::sregex_iterator(both.begin(), both.end(), begins), {}), 3) << both;
  expect_all_done(8);
}

/// Two tasks of an array on one number: one trains, the other waits for it.
TEST_F(Sweeps, OneRunTwiceIsTrainedOnce) {
  write_base(12);
  write_spec("grid: {train.optimizer.lr: [0.05]}\n");
  Background first(other_.path(), 0, words({"run", "0"}));
  wait_for_rounds(1);
  auto const said = sweep({"run", "0"}).out;
  EXPECT_THAT(said, testing::HasSubstr("with process "));
  EXPECT_THAT(said, testing::Not(testing::HasSubstr("begins")));
  EXPECT_EQ(first.ends_within(std::chrono::seconds(60)), 0);
  expect_all_done(12);
}

TEST_F(Sweeps, SignalsReachTheRuns) {
  write_base(2000);
  write_spec("grid: {train.optimizer.lr: [0.05]}\n");
  for (int const number : {SIGTERM, SIGUSR1}) {
    fs::remove_all(dir_ / "runs");
    Background stopped(dir_.path(), 0, words({"run", "0"}));
    wait_for_rounds(1);
    stopped.signal(number);
    EXPECT_EQ(stopped.ends_within(std::chrono::seconds(60)), 85);
    auto const row = list()[0];
    EXPECT_EQ(row.at("state"), "pending");
    EXPECT_FALSE(fs::is_empty(folder(row) / "checkpoints")) << "the run saved its state";
  }
  auto const rounds = read_events(dir_ / "runs/lr=0.05_seed=1/metrics.jsonl").size();
  write_base(static_cast<int>(rounds) + 3);
  EXPECT_THAT(sweep({"run", "0"}).out, testing::HasSubstr("goes on"));
  expect_all_done(static_cast<int>(rounds) + 3);
}

TEST_F(Sweeps, RanksChangeNothing) {
  write_spec("grid: {train.optimizer.lr: [0.05, 0.5]}\n");
  char const* const launcher = std::getenv("FSLLM_MPIEXEC");
  sweep({"run", "all", "--np", "2", "--jobs", "2", "--launcher",
         fmt::format("{} -np", launcher == nullptr ? "mpirun" : launcher)});
  expect_all_done(3);
  auto const rows = list();
  EXPECT_EQ(json::parse(read_text(folder(rows[1]) / "summary.json")).at("ranks"), 2);
  expect_bits_of_a_plain_run(rows[1]);
}

TEST_F(Sweeps, WrongKeysAreCaughtBeforeTheFirstRun) {
  write_spec("grid:\n  train.optimizer.lr: [0.05]\n  train.local_update_setps: [1, 2]\n");
  expect_message(run(dir_.path(), 0, words({"run", "all"})), "Did you mean 'train.local_update_steps'?");
  write_spec("grid: {train.optimizer.lr: [0.05, fast]}\n");
  expect_message(run(dir_.path(), 0, words({"run", "all"})), "train.optimizer.lr = fast: ");
  for (auto const& entry : fs::directory_iterator(dir_ / "runs"))
    EXPECT_EQ(entry.path().filename(), ".sweep") << "no run began";
}

TEST_F(Sweeps, FailedRunsAreToldAndTriedAgain) {
  write_spec("grid: {train.optimizer.lr: [fast, 0.5]}\n");
  auto const said = sweep({"run", "0"}, 2).out;
  EXPECT_THAT(said, testing::HasSubstr("failed with exit code 2"));
  EXPECT_THAT(said, testing::HasSubstr("train.optimizer.lr"));
  EXPECT_EQ(list()[0].at("state"), "failed");
  EXPECT_THAT(sweep({"status"}).out, testing::HasSubstr("run 0 (lr=fast_seed=1): failed, exit code 2: "));
  EXPECT_THAT(sweep({"table"}).out, testing::HasSubstr("2 of 2 runs are missing: 0 (failed), 1 (pending)"));
  sweep({"run", "1"});
  expect_message(run(dir_.path(), 0, words({"run", "2"})), "has runs 0 to 1");
}

TEST_F(Sweeps, RaisedRoundsGoOn) {
  write_spec("grid: {train.optimizer.lr: [0.05]}\n");
  sweep({"run", "all"});
  write_base(5);
  EXPECT_EQ(list()[0].at("state"), "pending") << "two rounds are missing now";
  EXPECT_THAT(sweep({"run", "all"}).out, testing::HasSubstr("goes on"));
  expect_all_done(5);
}

/// Rungs of 1, 2 and 4 rounds; who goes on follows from the losses that the runs wrote.
TEST_F(Sweeps, HalvingContinuesTheBest) {
  write_spec(
      "random: {count: 4, seed: 2, keys: {train.optimizer.lr: {log_uniform: [0.01, 1.0]}}}\n"
      "halving: {budget_key: federate.total_round_num, min: 1, max: 4, eta: 2}\nseeds: [1, 2]\n");
  sweep({"run", "all", "--jobs", "2"});
  auto const rows = list();
  ASSERT_EQ(rows.size(), 8U);
  std::vector<std::map<int, double>> losses(4);  // of a setting by round, the sum over seeds
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(rows[i].at("state"), "done");
    for (auto const& event : read_events(folder(rows[i]) / "metrics.jsonl"))
      if (event.at("event") == "round")
        losses[i / 2][event.at("round").get<int>()] += event.at("val").at("loss_per_token").get<double>();
  }
  std::vector<size_t> alive{0, 1, 2, 3};
  for (int const rounds : {1, 2}) {
    std::sort(alive.begin(), alive.end(),
              [&](size_t a, size_t b) { return losses[a].at(rounds) < losses[b].at(rounds); });
    for (size_t i = alive.size() / 2; i < alive.size(); ++i)
      EXPECT_EQ(losses[alive[i]].size(), static_cast<size_t>(rounds))
          << "setting " << alive[i] << " stops here";
    alive.resize(alive.size() / 2);
  }
  ASSERT_EQ(alive.size(), 1U);
  EXPECT_EQ(losses[alive[0]].size(), 4U);
  auto const before = all_files();
  sweep({"run", "all"});
  EXPECT_EQ(all_files(), before);
}

TEST_F(Sweeps, BayesChoosesOneAfterAnother) {
  write_spec(
      "bayes: {count: 5, initial: 2, seed: 1, keys: {train.optimizer.lr: {log_uniform: [0.01, 1.0]}}}\n");
  EXPECT_TRUE(list().empty()) << "nothing is chosen yet";
  sweep({"run", "0"});
  EXPECT_EQ(list().size(), 1U);
  sweep({"run", "all"});
  expect_all_done(3);
  auto const rows = list();
  ASSERT_EQ(rows.size(), 5U);
  std::set<std::string> different;
  for (auto const& row : rows) different.insert(row.at("keys").dump());
  EXPECT_EQ(different.size(), 5U);
  expect_message(run(dir_.path(), 0, words({"run", "5"})), "has runs 0 to 4");
}

}  // namespace
}  // namespace fsllm::test
