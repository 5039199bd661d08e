// SPDX-License-Identifier: Apache-2.0
// The main job on real data: GSM8K and Dolly, a real trained model, shards, two ranks, exported adapter,
// scored requests.
#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

/// A folder with the data sets under the names that data.root expects.
void link_data(std::filesystem::path const& root) {
  std::filesystem::create_directories(root);
  std::filesystem::create_symlink(test_data("datasets/gsm8k/train.jsonl"), root / "gsm8k_train.jsonl");
}

double mean_loglikelihood(std::filesystem::path const& dir, std::vector<std::string> const& adapter) {
  std::vector<std::string> words{"fsllm_eval",
                                 "--model",
                                 test_data("models/stories260K").string(),
                                 "--requests",
                                 (dir / "requests.jsonl").string(),
                                 "--responses",
                                 (dir / "responses.jsonl").string()};
  words.insert(words.end(), adapter.begin(), adapter.end());
  auto const outcome = run(dir, 2, words);
  EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  double sum = 0;
  auto const responses = read_events(dir / "responses.jsonl");
  EXPECT_EQ(responses.size(), 20U);
  for (auto const& response : responses) sum += response.at("loglikelihood").get<double>();
  return sum / static_cast<double>(responses.size());
}

void write_requests(std::filesystem::path const& path) {
  std::ifstream rows(test_data("datasets/gsm8k/test.jsonl"));
  std::ofstream out(path);
  std::string line;
  for (int id = 0; id < 20 && std::getline(rows, line); ++id) {
    auto const row = nlohmann::json::parse(line);
    auto const context =
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\n" +
        row.at("question").get<std::string>().substr(0, 80) + "\n\n### Response:";
    out << nlohmann::json{{"id", id},
                          {"type", "loglikelihood"},
                          {"context", context},
                          {"continuation", row.at("answer").get<std::string>().substr(0, 60)}}
               .dump()
        << "\n";
  }
}

TEST(MainJob, Gsm8kShardedTrainedExportedScored) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  TempDir dir;
  link_data(dir / "data");
  auto const config = write_config(
      dir.path(),
      fmt::format("outdir: {0}\nexpname: gsm\nmodel: {{type: {1}}}\n"
                  "data: {{root: {0}/data, type: gsm8k@llm, splitter: iid, splits: [0.99, 0.005, 0.005]}}\n"
                  "llm: {{tok_len: 160, adapter: {{use: True, args: [{{adapter_package: peft, "
                  "adapter_method: lora, r: 8, lora_alpha: 16}}]}}}}\n"
                  "federate: {{client_num: 3, total_round_num: 3}}\n"
                  "dataloader: {{batch_size: 4}}\n"
                  "train: {{local_update_steps: 20, optimizer: {{type: AdamW, lr: 0.005}}}}\n",
                  dir.path().string(), test_data("models/stories260K").string()));
  auto const sharded =
      run(dir.path(), 2, {"fsllm_shard", "--cfg", config.string(), "--out", (dir / "shards").string()});
  ASSERT_EQ(sharded.exit_code, 0) << sharded.err << sharded.out;
  auto const trained =
      run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string(), "data.shards", (dir / "shards").string()});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const events = read_events(dir / "gsm/metrics.jsonl");
  double const before = events.front().at("val").at("loss_per_token"),
               after = events.back().at("val").at("loss_per_token");
  EXPECT_LT(after, 0.9 * before);
  write_requests(dir / "requests.jsonl");
  double const base = mean_loglikelihood(dir.path(), {}),
               tuned = mean_loglikelihood(dir.path(), {"--adapter", (dir / "gsm/adapter").string()});
  EXPECT_GT(tuned, base + 5);
}

TEST(MainJob, DollySplitByCategory) {
  FSLLM_NEED_TEST_DATA("datasets/dolly15k-fed10");
  TempDir dir;
  std::filesystem::create_directories(dir / "data");
  std::filesystem::create_symlink(test_data("datasets/dolly15k-fed10/local_training_5.json.gz"),
                                  dir / "data/databricks-dolly-15k.jsonl.gz");
  auto const config = write_config(
      dir.path(), fmt::format("outdir: {0}\nexpname: dolly\nmodel: {{type: {1}}}\n"
                              "data: {{root: {0}/data, type: dolly-15k@llm, splitter: lda, splitter_args: "
                              "[{{alpha: 0.5}}], splits: [0.9, 0.1, 0.0]}}\n"
                              "llm: {{tok_len: 256, adapter: {{use: True, args: [{{adapter_method: lora, r: "
                              "4, lora_alpha: 8}}]}}}}\n"
                              "federate: {{client_num: 4, total_round_num: 2}}\n"
                              "dataloader: {{batch_size: 2}}\n"
                              "train: {{local_update_steps: 20, optimizer: {{type: AdamW, lr: 0.005}}}}\n",
                              dir.path().string(), test_data("models/stories260K").string()));
  auto const trained = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string()});
  ASSERT_EQ(trained.exit_code, 0) << trained.err << trained.out;
  auto const events = read_events(dir / "dolly/metrics.jsonl");
  EXPECT_LT(events.back().at("val").at("loss_per_token").get<double>(),
            0.95 * events.front().at("val").at("loss_per_token").get<double>());
  auto const inspected = run(dir.path(), 0, {"fsllm_inspect", (dir / "dolly/shards").string(), "--json"});
  EXPECT_EQ(nlohmann::json::parse(inspected.out).at("clients").size(), 4U);
}

}  // namespace
}  // namespace fsllm::test
