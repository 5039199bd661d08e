// SPDX-License-Identifier: Apache-2.0
// The sweeps of configs/tables: every setting is accepted, and one of each kind of adapter and method trains,
// with a small model and few rows in the place of the real ones.
#include <fmt/core.h>
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "fsllm/io/files.hpp"
#include "process.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;
using Words = std::vector<std::string>;

class FieldTables : public testing::Test {
 protected:
  FieldTables() {
    fs::create_directories(dir_ / "configs");
    fs::copy(source_file("configs/tables"), tables_, fs::copy_options::recursive);
    fs::create_directories(dir_ / "data");
    std::ofstream gsm8k(dir_ / "data/gsm8k_train.jsonl"), dolly(dir_ / "data/databricks-dolly-15k.jsonl"),
        rosetta(dir_ / "data/rosetta_alpaca.json");
    rosetta << "[";
    for (int i = 0; i < 200; ++i) {
      gsm8k << json{{"question", fmt::format("What is {} + 1?", i)},
                    {"answer", fmt::format("#### {}", i + 1)}}
            << "\n";
      dolly << json{{"instruction", fmt::format("Say {}.", i)},
                    {"context", ""},
                    {"response", fmt::format("{}.", i)},
                    {"category", fmt::format("kind {}", i % 4)}}
            << "\n";
      rosetta << (i > 0 ? "," : "")
              << json{{"instruction", fmt::format("Print {}.", i)},
                      {"input", fmt::format("language {}", i % 8)},
                      {"output", fmt::format("print({})", i)}};
    }
    rosetta << "]";
    auto const model = test_data("models/stories260K");
    for (auto const* base : {"smollm2_base.yaml", "llama7b_base.yaml", "flowertune_base.yaml"})
      edit(tables_ / base, {{R"(model: \{type: [^}]*\})", "model: {type: " + model.string() + "}"},
                            {R"(hpc: \{stage_dir: [^}]*\})", "hpc: {stage_dir: cache}"},
                            {R"(use_gpu: True)", "use_gpu: False"},
                            {R"(eval: \{freq: \d+)", "eval: {freq: 1"},
                            {R"(total_round_num: \d+)", "total_round_num: 1"}});
  }
  static void edit(fs::path const& file, std::vector<std::pair<std::string, std::string>> const& changes) {
    auto text = read_text(file);
    for (auto const& [from, to] : changes) text = std::regex_replace(text, std::regex(from), to);
    std::ofstream(file) << text;
  }
  std::vector<json> list(std::string const& spec) const {
    auto const outcome = run(dir_.path(), 0, {"fsllm_sweep", (tables_ / spec).string(), "list", "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    std::vector<json> rows;
    std::istringstream lines(outcome.out);
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
    return rows;
  }
  void expect_accepted(std::string const& spec, std::string const& base, json const& row) const {
    Words words{"fsllm_hpc", "--check", "--cfg", (tables_ / base).string()};
    for (auto const& [key, value] : row.at("keys").items())
      words.push_back(key + "=" + (value.is_string() ? value.get<std::string>() : value.dump()));
    words.push_back("data.root=" + (dir_ / "data").string());
    words.push_back("outdir=" + dir_.path().string());
    if (row.at("keys").contains("eval.tasks"))  // of a model with few positions
      words.insert(words.end(), {"eval.task_data=" + test_data("datasets").string(), "eval.task_limit=1",
                                 "eval.task_shots=0"});
    auto const outcome = run(dir_.path(), 0, words);
    bool const no_sandbox = outcome.err.find("humaneval cannot be judged here") != std::string::npos;
    EXPECT_TRUE(outcome.exit_code == 0 || no_sandbox) << spec << " " << row << outcome.err;
  }
  TempDir dir_;
  fs::path const tables_ = dir_ / "configs/tables";
};

TEST_F(FieldTables, EverySettingIsAccepted) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  std::map<std::string, std::pair<std::string, size_t>> const specs{
      {"smollm2_dolly.yaml", {"smollm2_base.yaml", 36}}, {"smollm2_gsm8k.yaml", {"smollm2_base.yaml", 36}},
      {"flowertune.yaml", {"flowertune_base.yaml", 12}}, {"llama7b_dolly.yaml", {"llama7b_base.yaml", 36}},
      {"llama7b_gsm8k.yaml", {"llama7b_base.yaml", 36}}, {"llama7b_code.yaml", {"llama7b_base.yaml", 36}}};
  size_t found = 0;
  for (auto const& entry : fs::directory_iterator(tables_)) {
    auto const name = entry.path().filename().string();
    if (entry.path().extension() != ".yaml" || name.ends_with("_base.yaml")) continue;
    ++found;
    ASSERT_TRUE(specs.contains(name)) << name << " is not tested here";
    auto const& [base, runs] = specs.at(name);
    auto const rows = list(name);
    EXPECT_EQ(rows.size(), runs) << name;
    for (auto const& row : rows)
      if (row.at("seed") == 1) expect_accepted(name, base, row);
  }
  EXPECT_EQ(found, specs.size());
}

TEST_F(FieldTables, ASweepOfThemEndsInATable) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  edit(tables_ / "smollm2_gsm8k.yaml", {{R"(seeds: \[1, 2, 3\])", "seeds: [1]"}});
  auto const spec = (tables_ / "smollm2_gsm8k.yaml").string();
  auto const ran = run(dir_.path(), 0, {"fsllm_sweep", spec, "run", "all", "--jobs", "2"});
  ASSERT_EQ(ran.exit_code, 0) << ran.err << ran.out;
  auto const table = run(dir_.path(), 0, {"fsllm_sweep", spec, "table", "--format", "csv"}).out;
  EXPECT_THAT(table, testing::StartsWith("data,method,adapter,runs,test.loss_per_token_mean"));
  for (auto const* method : {"global", "fed", "local"})
    for (auto const* adapter : {"LoRA", "prefix", "P-tuning", "prompt"})
      EXPECT_THAT(table, testing::ContainsRegex(fmt::format("GSM8K-IID,{},{},1,[0-9.]+", method, adapter)));
}

}  // namespace
}  // namespace fsllm::test
