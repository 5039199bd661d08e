// SPDX-License-Identifier: Apache-2.0
// A run's page, the same in the terminal, and runs beside each other.
#include <fmt/core.h>

#include <cstdlib>
#include <fstream>

#include "preference.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

/// Three clients with held-out rows on two ranks, once for all tests.
class Reports : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    shared_ = std::make_unique<TempDir>();
    for (auto const& [name, lr] : {std::pair("<b>one & 'two'", "0.5"), {"other", "0.1"}}) {
      SmallRun small;
      small.splits = "[0.6, 0.2, 0.2]";
      small.rounds = 5;
      small.optimizer = fmt::format("{{type: SGD, lr: {}}}", lr);
      auto const outcome = train_in(shared_->path(), small, {"expname", name}, 2);
      ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
      said_ = outcome.out;
    }
  }
  static void TearDownTestSuite() { shared_.reset(); }
  fs::path one() const { return *shared_ / "<b>one & 'two'"; }
  fs::path other() const { return *shared_ / "other"; }
  Outcome call(std::vector<std::string> const& words) { return run(dir_.path(), 0, words); }
  void expect_refused(std::vector<std::string> const& words, std::string const& said) {
    auto const outcome = call(words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_THAT(outcome.err, HasSubstr(said));
  }
  /// A script of tests/e2e, or "-c PROGRAM", by the Python of the tests or any; nothing where there is none.
  std::optional<std::pair<int, std::string>> script(std::string const& name,
                                                    std::vector<fs::path> const& arguments) {
    char const* given = std::getenv("FSLLM_TEST_PYTHON");
    std::string const python = given == nullptr || *given == '\0' ? "python3" : given;
    if (std::system((python + " -c '' 2> /dev/null").c_str()) != 0) return {};
    auto command =
        python + " " + (name.starts_with("-c ") ? name : source_file("tests/e2e/" + name).string());
    for (auto const& argument : arguments) command += " \"" + argument.string() + "\"";
    auto const out = dir_ / "script.txt";
    int const status = std::system((command + " > " + out.string() + " 2>&1").c_str());
    return std::pair(WEXITSTATUS(status), read_text(out));
  }
  /// The page says what metrics.jsonl of `run` does.
  void expect_page(fs::path const& run, fs::path const& page) {
    auto const checked = script("check_report.py", {run, page});
    if (!checked) GTEST_SKIP() << "no Python";
    EXPECT_EQ(checked->first, 0) << checked->second;
  }
  fs::path copy_of(fs::path const& run, std::string const& name) {
    fs::copy(run, dir_ / name, fs::copy_options::recursive);
    return dir_ / name;
  }
  TempDir dir_;
  static std::unique_ptr<TempDir> shared_;
  static std::string said_;
};

std::unique_ptr<TempDir> Reports::shared_;
std::string Reports::said_;

TEST_F(Reports, ThePageIsWhatMetricsSay) {
  ASSERT_TRUE(fs::exists(one() / "report.html"));
  expect_page(one(), one() / "report.html");
  auto const page = read_text(one() / "report.html");
  EXPECT_THAT(page, HasSubstr("<h1>&lt;b&gt;one &amp; &#39;two&#39;</h1>"));
  EXPECT_THAT(page, Not(HasSubstr("<b>one")));
}

TEST_F(Reports, LooksGoodInARealBrowser) {
  auto const seen = script("look_at_report.py", {other() / "report.html"});
  if (!seen) GTEST_SKIP() << "no Python";
  if (seen->first == 77) GTEST_SKIP() << seen->second;
  ASSERT_EQ(seen->first, 0) << seen->second;
  auto const facts = json::parse(seen->second);
  for (auto const& [place, width] : {std::pair("phone", 390), {"desktop", 1200}, {"dark", 390}}) {
    auto const& at = facts.at(place);
    EXPECT_EQ(at.at("width"), width) << place << " scrolls sideways";
    EXPECT_EQ(at.at("outside"), json::array()) << place;
    EXPECT_GE(at.at("smallest_text").get<double>(), 10) << place;
    EXPECT_EQ(at.at("invisible"), 0) << place;
    EXPECT_GE(at.at("curves").size(), 8U) << place;
    for (auto const& points : at.at("curves")) EXPECT_EQ(points, 5) << place;
  }
  EXPECT_EQ(facts.at("phone").at("ground"), "rgb(255, 255, 255)");
  EXPECT_EQ(facts.at("dark").at("ground"), "rgb(22, 22, 26)");
  EXPECT_NE(facts.at("dark").at("ink"), facts.at("phone").at("ink"));
  EXPECT_GE(facts.at("pages").get<int>(), 2);
  EXPECT_LE(facts.at("pages").get<int>(), 12);
}

TEST_F(Reports, TheTerminalSaysTheSame) {
  auto const shown = call({"fsllm_inspect", other().string()});
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  for (auto const& event : read_events(other() / "metrics.jsonl"))
    for (auto const* part : {"train", "val", "test"})
      if (event.contains(part)) {
        EXPECT_THAT(shown.out,
                    HasSubstr(fmt::format("{:.6f}", event.at(part).at("loss_per_token").get<double>())));
      }
  for (auto const* what : {"5 of 5 rounds", "\nclients\n", "\nphases\n", "\nranks\n", "\nenvironment\n",
                           "processor", "newest checkpoint: round 5"})
    EXPECT_THAT(shown.out, HasSubstr(what));
  EXPECT_THAT(shown.out, Not(HasSubstr("warning")));
  auto const facts = json::parse(call({"fsllm_inspect", other().string(), "--json"}).out);
  EXPECT_EQ(facts.at("kind"), "run");
  auto const& report = facts.at("report");
  EXPECT_EQ(report.at("rounds_done"), 5);
  EXPECT_EQ(report.at("rounds").size(), 6U);
  EXPECT_EQ(report.at("rounds")[5].at("val"),
            read_events(other() / "metrics.jsonl").at(5).at("val").at("loss_per_token"));
  ASSERT_EQ(report.at("clients").size(), 3U);
  ASSERT_EQ(report.at("ranks").size(), 2U);
  int64_t turns = 0;
  for (auto const& rank : report.at("ranks")) {
    turns += rank.at("turns").get<int64_t>();
    EXPECT_GT(rank.at("seconds").at("train").get<double>(), 0);
    EXPECT_GT(rank.at("peak_rss_bytes").get<int64_t>(), 1 << 20);
  }
  EXPECT_EQ(turns, 15);
}

/// Round, losses, speed, time left, the slowest rank and memory.
TEST_F(Reports, ProgressTellsWhatIsLeftAndTheSlowestRank) {
  EXPECT_THAT(
      said_,
      testing::ContainsRegex(
          "round 2/5: train loss [0-9.]+, test loss [0-9.]+, val loss [0-9.]+,[a-z0-9. ,]* [0-9]+ tokens/s, "
          "[0-9]+ s left, slowest rank [01] \\([0-9.e-]+ s of training, mean [0-9.e-]+ s\\), [0-9]+ MiB"));
  EXPECT_THAT(said_, testing::ContainsRegex("round 5/5: [^\n]* tokens/s, slowest rank"));
}

TEST_F(Reports, OfARunThatIsNotFinishedOrDamaged) {
  auto const run = copy_of(other(), "half");
  auto const lines = read_text(run / "metrics.jsonl");
  auto const third = lines.find("{\"event\":\"round\",\"round\":3"),
             fourth = lines.find("{\"event\":\"round\",\"round\":4");
  std::ofstream(run / "metrics.jsonl")
      << lines.substr(0, third) << "{\"event\":\"rou\n[1]\n"
      << lines.substr(third, fourth - third) << R"({"event":"round","round":4,"tr)";
  for (auto const* name : {"summary.json", "report.html", "run.json", "metrics_ranks.jsonl"})
    fs::remove(run / name);
  auto const made = call({"fsllm_inspect", run.string(), "--report"});
  ASSERT_EQ(made.exit_code, 0) << made.err;
  EXPECT_THAT(made.out, HasSubstr((run / "report.html").string()));
  auto const page = read_text(run / "report.html");
  for (auto const* said :
       {"3 of 5 rounds, not finished", "metrics.jsonl: 2 damaged lines left out, the first is line 4",
        "metrics_ranks.jsonl is missing", "run.json is missing"})
    EXPECT_THAT(page, HasSubstr(said));
  ASSERT_EQ(call({"fsllm_inspect", run.string(), "--report", "--out", (dir_ / "elsewhere.html").string()})
                .exit_code,
            0);
  EXPECT_EQ(read_text(dir_ / "elsewhere.html"), page);
  // The page is the run's own: it goes on, and may be replaced.
  auto const resumed = call({"fsllm_hpc", "--resume", run.string(), "federate.total_round_num", "6"});
  ASSERT_EQ(resumed.exit_code, 0) << resumed.err;
  EXPECT_THAT(read_text(run / "report.html"), HasSubstr("6 of 6 rounds"));
  EXPECT_THAT(read_text(run / "report.html"), Not(HasSubstr("damaged")));
}

TEST_F(Reports, AFolderWithoutARunIsNamed) {
  fs::create_directories(dir_ / "empty");
  std::ofstream(dir_ / "file") << "x";
  fs::create_directories(dir_ / "begun");
  fs::copy(other() / "config.yaml", dir_ / "begun/config.yaml");
  for (auto const& [name, said] : {std::pair("none", "is no run directory (there is no such folder)"),
                                   {"file", "is no run directory (it is not a folder)"},
                                   {"empty", "holds no run to report on (no config.yaml there)"},
                                   {"begun", "holds no run to report on (no metrics.jsonl there)"}}) {
    expect_refused({"fsllm_inspect", (dir_ / name).string(), "--report"}, said);
    expect_refused({"fsllm_hpc", "--compare", other().string(), (dir_ / name).string()}, said);
  }
  expect_refused(
      {"fsllm_inspect", other().string(), "--report", "--out", (dir_ / "no/such/page.html").string()},
      "page.html");
  expect_refused({"fsllm_inspect", other().string(), "--out", "x.html"}, "--out without --report");
  // A page that somebody else put there stays.
  auto const run = copy_of(other(), "foreign");
  auto list = json::parse(read_text(run / ".fsllm/files.json"));
  auto& files = list.at("files");
  files.erase(std::find(files.begin(), files.end(), "report.html"));
  std::ofstream(run / ".fsllm/files.json") << list;
  std::ofstream(run / "report.html") << "mine";
  expect_refused({"fsllm_inspect", run.string(), "--report"}, "already holds report.html");
  EXPECT_EQ(read_text(run / "report.html"), "mine");
}

TEST_F(Reports, RunsBesideEachOther) {
  auto const shown = call({"fsllm_hpc", "--compare", one().string(), other().string()});
  ASSERT_EQ(shown.exit_code, 0) << shown.err;
  for (auto const& run : {one(), other()})
    for (auto const& event : read_events(run / "metrics.jsonl"))
      if (event.contains("val")) {
        EXPECT_THAT(shown.out,
                    HasSubstr(fmt::format("{:.6f}", event.at("val").at("loss_per_token").get<double>())));
      }
  EXPECT_THAT(shown.out, testing::ContainsRegex("train.optimizer.lr +0.5 +0.1"));
  EXPECT_THAT(shown.out, Not(HasSubstr("expname")));
  EXPECT_THAT(shown.out, Not(HasSubstr("total_round_num")));
  auto const page = dir_ / "both.html";
  ASSERT_EQ(call({"fsllm_hpc", "--compare", one().string(), other().string(), one().string(), "--out",
                  page.string()})
                .exit_code,
            0);
  auto const text = read_text(page);
  EXPECT_THAT(text, HasSubstr("data-curve=\"other\""));
  EXPECT_THAT(text, Not(HasSubstr("<b>one")));
  EXPECT_THAT(text, HasSubstr("train.optimizer.lr"));
  auto const seen = script("look_at_report.py", {page});
  if (seen && seen->first == 0) {
    EXPECT_EQ(json::parse(seen->second).at("phone").at("width"), 390);
    EXPECT_EQ(json::parse(seen->second).at("phone").at("curves"), json(std::vector<int>(9, 5)));
  }
  expect_refused({"fsllm_hpc", "--compare", one().string()}, "(one run has nothing beside it)");
  expect_refused({"fsllm_hpc", "--compare"}, "--compare");
  expect_refused({"fsllm_hpc", "--out", "x.html", "--cfg", "x.yaml"}, "--out without --compare");
}

/// By the real package, which writes offline what it would send.
TEST_F(Reports, GoIntoWeightsAndBiases) {
  auto const installed = script("-c \"import wandb\"", {});
  if (!installed) GTEST_SKIP() << "no Python";
  if (installed->first != 0) {
    auto const [code, said] = script("../../tools/fsllm_wandb.py", {other()}).value();
    EXPECT_EQ(code, 2);
    EXPECT_THAT(said, HasSubstr("the Python package wandb is missing. Install it: pip install wandb."));
    GTEST_SKIP() << "no Python with wandb (FSLLM_TEST_PYTHON)";
  }
  setenv("WANDB_MODE", "offline", 1);
  setenv("WANDB_SILENT", "true", 1);
  auto const import = [&](fs::path const& run) {
    return script("../../tools/fsllm_wandb.py", {run, "--dir", dir_.path(), "--project", "p"}).value();
  };
  auto const [code, said] = import(other());
  ASSERT_EQ(code, 0) << said;
  EXPECT_THAT(said, HasSubstr("6 rounds of"));
  auto const read = script("read_wandb.py", {dir_.path()}).value();
  ASSERT_EQ(read.first, 0) << read.second;
  auto const facts = json::parse(read.second);
  EXPECT_EQ(facts.at("name"), "other");
  EXPECT_EQ(facts.at("config").at("federate").at("total_round_num"), 5);
  ASSERT_EQ(facts.at("history").size(), 6U);
  for (auto const& event : read_events(other() / "metrics.jsonl")) {
    if (event.at("event") == "end") continue;
    auto const& step = facts.at("history").at(event.at("round").get<size_t>());
    EXPECT_EQ(step.at("round"), event.at("round"));
    EXPECT_EQ(step.at("_step"), event.at("round"));
    EXPECT_EQ(step.at("val/loss_per_token"), event.at("val").at("loss_per_token"));
    EXPECT_EQ(step.at("bytes_up"), event.at("bytes_up"));
  }
  EXPECT_EQ(facts.at("summary").at("best_loss"),
            json::parse(read_text(other() / "summary.json")).at("best_loss"));
  auto const run = copy_of(other(), "damaged");
  std::ofstream(run / "metrics.jsonl", std::ios::app) << "{\"event\":\n";
  EXPECT_THAT(import(run).second, HasSubstr("metrics.jsonl:8 is damaged and left out"));
  fs::remove(run / "metrics.jsonl");
  auto const refused = import(run);
  EXPECT_EQ(refused.first, 2);
  EXPECT_THAT(refused.second, HasSubstr("holds no run that has begun (no metrics.jsonl there)"));
}

TEST_F(Reports, LossesOfTwoKindsAreNotCompared) {
  SmallRun small;
  small.rounds = 2;
  small.splits = "[0.6, 0.2, 0.2]";
  auto const outcome = train_in(dir_.path(), small, on_pairs({"train.loss", "dpo", "expname", "pairs"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  expect_page(dir_ / "pairs", dir_ / "pairs/report.html");
  EXPECT_THAT(read_text(dir_ / "pairs/report.html"), HasSubstr("loss, a pair"));
  expect_refused({"fsllm_hpc", "--compare", other().string(), (dir_ / "pairs").string()},
                 "has loss_per_token and " + (dir_ / "pairs").string() + " has loss_per_pair");
}

}  // namespace
}  // namespace fsllm::test
