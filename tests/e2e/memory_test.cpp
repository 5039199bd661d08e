// SPDX-License-Identifier: Apache-2.0
// What a run of SmolLM2-135M takes: ranks of a node share the weights, clients of a rank share the model.
#include <fstream>
#include <regex>

#include "process.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;
constexpr double kMiB = 1 << 20;

class Memory : public testing::Test {
 protected:
  void SetUp() override {
    if (!fs::exists(model_))
      GTEST_SKIP() << "no test data: " << model_.string() << " (tools/bootstrap.sh --with-demo-model)";
    if (!fs::exists("/proc/self/smaps_rollup")) GTEST_SKIP() << "no smaps_rollup here";
    std::ofstream rows(dir_ / "rows.jsonl");
    for (int i = 0; i < 40; ++i)
      rows << R"({"instruction": "Count to )" << i << R"(.", "input": "", "output": "Done."})"
           << "\n";
  }
  /// One round of one step a client, each client with an adapter of its own where `method` is local.
  Outcome train(std::string const& name, int ranks, int clients, std::string const& method) {
    auto const yaml = "outdir: " + dir_.path().string() + "\nexpname: " + name +
                      "\nmodel: {type: " + model_.string() + "}\ndata: {root: " + dir_.path().string() +
                      ", type: rows.jsonl, splitter: iid, splits: [1.0, 0.0, 0.0], prompt_template: plain}\n"
                      "federate: {method: " +
                      method + ", client_num: " + std::to_string(clients) +
                      ", total_round_num: 1}\ndataloader: {batch_size: 1}\ncheckpoint: {every_rounds: 0}\n"
                      "train: {local_update_steps: 1, optimizer: {type: SGD, lr: 0.1}}\n"
                      "llm: {tok_len: 32, adapter: {use: True, args: [{adapter_method: lora, r: 16, "
                      "target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]}]}}\n"
                      "hpc: {stage_dir: " +
                      (dir_ / "stage").string() + "}\n";
    auto const outcome =
        run(dir_.path(), ranks, {"fsllm_hpc", "--cfg", write_config(dir_.path(), yaml).string()});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
    return outcome;
  }
  /// MiB of all ranks before the first step, as the run logs it.
  static double before_training(Outcome const& outcome) {
    auto const text = outcome.out + outcome.err;
    std::smatch match;
    if (!std::regex_search(text, match, std::regex("memory before training: ([0-9]+) MiB on all ranks")))
      return -1;
    return std::stod(match[1]);
  }
  double peak_mib(std::string const& name) {
    double peak = 0;
    for (auto const& event : read_events(dir_.path() / name / "metrics.jsonl"))
      if (event.at("event") == "round") peak = event.at("peak_rss_bytes").get<double>() / kMiB;
    return peak;
  }
  fs::path model_ = source_file(".deps/models/SmolLM2-135M-Instruct.Q4_1.gguf");
  TempDir dir_;
};

TEST_F(Memory, FourRanksTakeLessThanTwiceOneRank) {
  train("first", 1, 4, "fedavg");  // converts the weights
  double const one = before_training(train("one", 1, 4, "fedavg"));
  double const four = before_training(train("four", 4, 4, "fedavg"));
  std::printf("before the first step: %.0f MiB on one rank, %.0f MiB on four together\n", one, four);
  EXPECT_GT(one, 400);
  EXPECT_LT(four, 2 * one);
}

/// Clients' own adapters lie on disk; 64 MiB of them stay in memory (ClientStates).
TEST_F(Memory, ClientsOfARankAddLittle) {
  train("one", 1, 1, "local");
  train("twenty", 1, 20, "local");
  train("shared", 1, 20, "fedavg");
  double const adapter =
      static_cast<double>(fs::file_size(dir_ / "shared/adapter/adapter_model.safetensors")) / kMiB;
  double const local = peak_mib("twenty") - peak_mib("one"), fedavg = peak_mib("shared") - peak_mib("one");
  std::printf("19 clients more: %.0f MiB with an adapter of %.1f MiB each, %.0f MiB with one for all\n",
              local, adapter, fedavg);
  EXPECT_GT(adapter, 15);
  EXPECT_LT(local, 64 + 3 * adapter);
  EXPECT_LT(fedavg, 3 * adapter);
}

}  // namespace
}  // namespace fsllm::test
