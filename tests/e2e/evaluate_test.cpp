// SPDX-License-Identifier: Apache-2.0
// fsllm_eval: answers that depend on the questions alone, and what it takes from a run.
#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// Requests of all kinds and of many lengths, in no order.
void write_requests(fs::path const& file, int count) {
  std::ofstream out(file);
  for (int i = 0; i < count; ++i) {
    std::vector<int> ids, more;
    for (int k = 0; k < 2 + i * 7 % 23; ++k) ids.push_back(3 + (i + 5 * k) % 40);
    for (int k = 0; k < 1 + i % 4; ++k) more.push_back(4 + (i + k) % 30);
    nlohmann::json request{{"id", i}};
    if (i % 3 == 0)
      request.update({{"type", "loglikelihood"}, {"context_ids", ids}, {"continuation_ids", more}});
    if (i % 3 == 1) request.update({{"type", "loglikelihood_rolling"}, {"ids", ids}});
    if (i % 3 == 2)
      request.update({{"type", "generate_until"},
                      {"context_ids", ids},
                      {"max_tokens", 4 + i % 5},
                      {"temperature", i % 2},
                      {"seed", i}});
    out << request.dump() << "\n";
  }
}

TEST(Evaluate, RequestsHaveTheSameBitsOnAnyRanks) {
  TempDir dir;
  write_requests(dir / "in.jsonl", 50);
  std::string alone;
  for (int const np : {0, 1, 2, 3, 4}) {
    auto const out = dir / ("out" + std::to_string(np) + ".jsonl");
    auto const outcome = run(dir.path(), np,
                             {"fsllm_eval", "--model", reference_dir("llama").string(), "--batch_tokens",
                              "40", "--requests", (dir / "in.jsonl").string(), "--responses", out.string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const answers = read_text(out);
    EXPECT_EQ(std::count(answers.begin(), answers.end(), '\n'), 50);
    if (alone.empty()) alone = answers;
    EXPECT_TRUE(answers == alone) << np << " ranks";
  }
}

/// A run on rows of text, and evaluations of what it wrote.
class EvaluateRun : public testing::Test {
 protected:
  EvaluateRun() {
    write_text_model(dir_ / "model", 320);
    std::ofstream rows(dir_ / "rows.jsonl"), tasks(dir_ / "tasks.jsonl");
    for (int i = 0; i < 40; ++i)
      (i % 10 == 0 ? tasks : rows) << nlohmann::json{{"instruction", "say " + std::to_string(i)},
                                                     {"input", i % 2 == 0 ? "" : "now"},
                                                     {"output", "no " + std::to_string(i)}}
                                          .dump()
                                   << "\n";
  }
  std::string yaml(std::string const& data) const {
    return fmt::format(
        "outdir: {0}\nexpname: run\nmodel: {{type: {0}/model}}\ndata: {{root: {0}, type: rows.jsonl, {1}}}\n"
        "federate: {{client_num: 2, total_round_num: 1}}\n"
        "train: {{local_update_steps: 2, optimizer: {{type: SGD, lr: 0.5}}}}\n"
        "llm: {{tok_len: 200, adapter: {{use: True, args: [{{r: 4, lora_alpha: 8}}]}}}}\n",
        dir_.path().string(), data);
  }
  void train(std::string const& data, std::vector<std::string> const& more = {}) {
    fs::remove_all(dir_ / "run");
    std::vector<std::string> words{"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml(data)).string()};
    words.insert(words.end(), more.begin(), more.end());
    auto const outcome = run(dir_.path(), 0, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }
  Outcome evaluate(std::vector<std::string> const& more, int np = 0) {
    std::vector<std::string> words{"fsllm_eval", "--out", (dir_ / fmt::format("out{}", ++calls_)).string()};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  /// What the last evaluation wrote, a row a line.
  std::string predictions() const { return read_text(dir_ / fmt::format("out{}/predictions.jsonl", calls_)); }
  std::vector<std::string> of_adapter(std::vector<std::string> const& more = {}) const {
    std::vector<std::string> words{"--model",   (dir_ / "model").string(),
                                   "--adapter", (dir_ / "run/adapter").string(),
                                   "--tasks",   "tasks.jsonl",
                                   "--data",    dir_.path().string()};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  void expect_ok(Outcome const& outcome, std::string const& said) {
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.out + outcome.err, testing::HasSubstr(said));
  }
  void expect_refused(Outcome const& outcome, std::string const& said) {
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(said));
  }
  TempDir dir_;
  int calls_ = 0;
};

TEST_F(EvaluateRun, TheAdaptersOwnTemplateIsTheDefault) {
  train("prompt_template: plain, splits: [1.0, 0.0, 0.0]");
  expect_ok(evaluate(of_adapter()), "adapter: prompt template plain (it was trained with that)");
  auto const own = predictions();
  expect_ok(evaluate(of_adapter({"--prompt_template", "plain"})), "adapter: prompt template plain");
  EXPECT_EQ(predictions(), own);
  expect_ok(evaluate(of_adapter({"--prompt_template", "alpaca"})),
            "adapter: prompt template alpaca (it was trained with plain)");
  EXPECT_NE(predictions(), own);
  expect_ok(evaluate(of_adapter({"--base"})), "base: prompt template plain (that of the adapter)");
  fs::remove(dir_ / "run/adapter/fsllm.json");
  expect_ok(evaluate(of_adapter()), "prompt template alpaca (its folder does not say");
  std::ofstream(dir_ / "run/adapter/fsllm.json") << R"({"version": 1, "prompt": {"name": "plainn"}})";
  expect_refused(evaluate(of_adapter()), "fsllm.json: data.prompt_template = 'plainn'");
  std::ofstream(dir_ / "run/adapter/fsllm.json") << R"({"version": 1})";
  expect_refused(evaluate(of_adapter()), "fsllm.json is damaged");
}

/// Templates of text travel whole: the files that they came from may be gone.
TEST_F(EvaluateRun, TemplatesTravelWithTheAdapter) {
  train("custom_template: {prompt: 'Q {instruction} {input} A '}, splits: [1.0, 0.0, 0.0]");
  expect_ok(evaluate(of_adapter()), "adapter: prompt template custom:");
  std::ofstream(dir_ / "chat.jinja")
      << "{% for m in messages %}{{ m.role }} {{ m.content }} {{ strftime_now('%Y') }}\n{% endfor %}"
         "{% if add_generation_prompt %}assistant {% endif %}";
  train(fmt::format("chat_template: {}, template_date: '2025-03-01', splits: [1.0, 0.0, 0.0]",
                    (dir_ / "chat.jinja").string()));
  expect_ok(evaluate(of_adapter()), "adapter: prompt template model:");
  auto const own = predictions();
  fs::remove(dir_ / "chat.jinja");
  expect_ok(evaluate(of_adapter()), "adapter: prompt template model:");
  EXPECT_EQ(predictions(), own);
}

TEST_F(EvaluateRun, ReadyShardsSayTheirTemplate) {
  auto const config = write_config(dir_.path(), yaml("prompt_template: plain")).string();
  auto const shards = (dir_ / "shards").string();
  ASSERT_EQ(run(dir_.path(), 0, {"fsllm_shard", "--cfg", config, "--out", shards}).exit_code, 0);
  for (std::string const place : {"data.shards", "hpc.shard_roots"}) {
    train("prompt_template: plain", {place, place == "data.shards" ? shards : "[" + shards + "]"});
    expect_ok(evaluate(of_adapter()), "adapter: prompt template plain (it was trained with that)");
    expect_refused(evaluate({"--run", (dir_ / "run").string()}), "(it was trained on ready shards");
  }
}

/// Every rank reads the index; one of them speaks.
TEST_F(EvaluateRun, AShardIndexWithoutAGoodTemplateIsNamedOnce) {
  auto const config = write_config(dir_.path(), yaml("prompt_template: plain")).string();
  auto const shards = (dir_ / "shards").string();
  ASSERT_EQ(run(dir_.path(), 0, {"fsllm_shard", "--cfg", config, "--out", shards}).exit_code, 0);
  auto index = nlohmann::json::parse(read_text(dir_ / "shards/index.json"));
  index["prompt"] = {{"name", "plane"}};
  std::ofstream(dir_ / "shards/index.json") << index.dump();
  auto const outcome = run(dir_.path(), 2, {"fsllm_hpc", "--cfg", config, "data.shards", shards});
  expect_refused(outcome, "index.json of the shards: data.prompt_template = 'plane'");
  EXPECT_EQ(outcome.err.find("error: "), outcome.err.rfind("error: ")) << outcome.err;
}

TEST_F(EvaluateRun, TakesWhatItNeedsFromTheRun) {
  train("prompt_template: plain, splits: [0.6, 0.1, 0.3]");
  auto const place = (dir_ / "run").string();
  expect_ok(evaluate({"--run", place, "--base"}), "adapter: prompt template plain");
  auto const alone = predictions();
  auto const rows = read_events(dir_ / "out1/predictions.jsonl");
  int64_t kept = 0;
  auto const index = nlohmann::json::parse(read_text(dir_ / "run/shards/index.json"));
  for (auto const& client : index.at("clients"))
    if (client.at("client_id") != 0) kept += client.at("test").at("rows").get<int64_t>();
  EXPECT_EQ(static_cast<int64_t>(rows.size()), kept);
  EXPECT_TRUE(rows.front().at("answers").contains("base"));
  expect_ok(evaluate({"--run", place, "--base"}, 3), "adapter: prompt template plain");
  EXPECT_EQ(predictions(), alone);
  expect_ok(evaluate({"--run", place, "--tasks", "tasks.jsonl", "--data", dir_.path().string()}),
            "adapter: prompt template plain");
  auto const by_run = predictions();
  expect_ok(evaluate(of_adapter()), "");
  EXPECT_EQ(predictions(), by_run);
  write_requests(dir_ / "in.jsonl", 6);
  auto const outcome = run(dir_.path(), 2,
                           {"fsllm_eval", "--run", place, "--requests", (dir_ / "in.jsonl").string(),
                            "--responses", (dir_ / "answers.jsonl").string()});
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(read_events(dir_ / "answers.jsonl").size(), 6U);
}

TEST_F(EvaluateRun, WholeModelsAreScoredToo) {
  train("prompt_template: plain, splits: [0.6, 0.1, 0.3]", {"llm.adapter.use", "False"});
  expect_ok(evaluate({"--run", (dir_ / "run").string()}), "model: prompt template plain (it was trained");
  expect_refused(evaluate({"--run", (dir_ / "run").string(), "--base"}), "the run trained the whole model");
}

TEST_F(EvaluateRun, RunsWithNothingToScoreAreExplained) {
  expect_refused(evaluate({"--run", (dir_ / "none").string()}), "it holds no run");
  train("prompt_template: plain, splits: [1.0, 0.0, 0.0]");
  expect_refused(evaluate({"--run", (dir_ / "run").string()}), "its data.splits kept no rows for a test");
  fs::remove_all(dir_ / "run/adapter");
  expect_refused(evaluate({"--run", (dir_ / "run").string()}), "(the run has not ended)");
  train("prompt_template: plain, splits: [0.6, 0.1, 0.3]", {"federate.method", "local"});
  expect_refused(evaluate({"--run", (dir_ / "run").string()}), "trains one for each client");
}

TEST_F(EvaluateRun, AnAdapterOfAnotherTemplateIsNamedWhereTrainingGoesOn) {
  train("prompt_template: plain, splits: [1.0, 0.0, 0.0]");
  fs::rename(dir_ / "run/adapter", dir_ / "start");
  std::vector<std::string> words{"fsllm_hpc",
                                 "--cfg",
                                 write_config(dir_.path(), yaml("prompt_template: alpaca")).string(),
                                 "expname",
                                 "second",
                                 "llm.adapter.init_from",
                                 (dir_ / "start").string()};
  expect_ok(run(dir_.path(), 0, words),
            "was trained with the prompt template plain (these rows are made with");
  std::ofstream(dir_ / "start/fsllm.json") << "{}";
  words[4] = "third";
  auto const outcome = run(dir_.path(), 2, words);
  expect_refused(outcome, "fsllm.json is damaged");
  EXPECT_EQ(outcome.err.find("error: "), outcome.err.rfind("error: ")) << outcome.err;
}

}  // namespace
}  // namespace fsllm::test
