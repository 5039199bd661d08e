// SPDX-License-Identifier: Apache-2.0
// FedEx (hpo.fedex) through the program: runs that learn with which settings their clients train.
#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"

namespace fsllm::test {
namespace {

using Words = std::vector<std::string>;

class SettingsSearch : public testing::Test {
 protected:
  Outcome train(std::string const& name, Words const& more, int np = 2, int rounds = 3) {
    SmallRun small;
    small.rounds = rounds;
    small.splits = "[0.7, 0.3, 0.0]";
    small.more = "early_stop: {patience: 0}\n";
    Words words{"fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname",
                name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_trained(std::string const& name, Words const& more, int np = 2, int rounds = 3) {
    auto const outcome = train(name, more, np, rounds);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
  }
  static Words searching(std::string const& space, Words more = {}) {
    more.insert(more.end(), {"hpo.fedex.use", "True", "hpo.fedex.ss", space});
    return more;
  }
  std::string adapter(std::string const& name) {
    return read_text(dir_ / name / "adapter/adapter_model.safetensors");
  }
  TempDir dir_;
};

/// Of a rate that learns nothing and one that does, on real text, the latter becomes likely (0.87 to 0.90
/// with three seeds).
TEST(SettingsSearchOnText, WhatLearnsBecomesLikely) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  TempDir dir;
  auto const config = write_config(
      dir.path(),
      stories_on_gsm8k(
          dir.path(), 160, 8,
          "expname: run\nseed: 1\nfederate: {client_num: 4, total_round_num: 10}\n"
          "train: {local_update_steps: 5, optimizer: {type: AdamW}}\n"
          "hpo: {fedex: {use: True, diff: True, ss: {train.optimizer.lr: [0.0000001, 0.003]}}}\n"));
  auto const outcome = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  auto const searched =
      nlohmann::json::parse(read_text(dir / "run/summary.json")).at("searched").at("train.optimizer.lr");
  EXPECT_EQ(searched.at("value"), "0.003") << searched;
  EXPECT_GT(searched.at("probability").get<double>(), 0.75);
  auto const last = read_events(dir / "run/metrics.jsonl").back();
  EXPECT_NEAR(last.at("fedex.train.optimizer.lr=0.0000001").get<double>() +
                  last.at("fedex.train.optimizer.lr=0.003").get<double>(),
              1, 1e-12);
}

/// A search among one setting trains as a run that has it; a client's own keys give way to what is searched.
TEST_F(SettingsSearch, OneSettingIsThatSetting) {
  expect_trained("plain", {"train.optimizer.lr", "0.3", "train.local_update_steps", "2"});
  expect_trained("searched", searching("{train.optimizer.lr: [0.3], train.local_update_steps: [2]}"));
  EXPECT_TRUE(adapter("searched") == adapter("plain"));
  std::ofstream(dir_ / "clients.yaml")
      << "client_2: {train: {optimizer: {lr: 9.0}}, grad: {grad_clip: 0.01}}\n";
  Words const own{"--client_cfg", dir_ / "clients.yaml"};
  expect_trained("own", searching("{train.optimizer.lr: [0.3], train.local_update_steps: [2]}", own));
  EXPECT_FALSE(adapter("own") == adapter("plain")) << "the client's clipping";
  std::ofstream(dir_ / "clients.yaml") << "client_2: {train: {optimizer: {lr: 9.0}}}\n";
  expect_trained("given_way", searching("{train.optimizer.lr: [0.3], train.local_update_steps: [2]}", own));
  EXPECT_TRUE(adapter("given_way") == adapter("plain"));
}

/// FS-LLM's file, beside the YAML; runs that go on need it no more, and end with the same bits.
TEST_F(SettingsSearch, FilesAndRunsThatGoOn) {
  expect_trained("inline", searching("{train.optimizer.lr: [0.1, 0.5], train.local_update_steps: [1, 3]}"), 2,
                 6);
  std::ofstream(dir_ / "space.yaml") << "train.optimizer.lr:\n  type: cate\n  choices: [0.1, 0.5]\n"
                                        "train.local_update_steps: [1, 3]\n";
  expect_trained("file", searching("space.yaml"), 3, 3);
  std::filesystem::remove(dir_ / "space.yaml");
  auto const outcome =
      run(dir_.path(), 2, {"fsllm_hpc", "--resume", dir_ / "file", "federate.total_round_num", "6"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_TRUE(adapter("file") == adapter("inline"));
  auto const refused = train("inline", searching("{train.optimizer.lr: [0.1, 0.7]}", {"--resume"}), 2, 8);
  EXPECT_EQ(refused.exit_code, 2);
  EXPECT_THAT(refused.err, testing::HasSubstr("hpo.fedex.ss"));
}

TEST_F(SettingsSearch, MistakesAreNamed) {
  auto const expect_message = [&](Words const& more, std::string const& message) {
    auto const outcome = train("bad", more);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "bad"));
  };
  auto const rates = "{train.optimizer.lr: [0.1, 0.5]}";
  expect_message({"hpo.fedex.use", "True"}, "hpo.fedex.ss names no keys");
  expect_message(searching("{train.optimzer.lr: [0.1]}"), "Did you mean 'train.optimizer.lr'?");
  expect_message(searching("{train.optimizer.lr: [fast]}"),
                 "train.optimizer.lr = 'fast' (a number is needed)");
  expect_message(searching("{train.optimizer.lr: 0.1}"), "is not a list of values");
  expect_message(searching("{federate.method: [fedavg, fedopt]}"), "federate.method (unknown key)");
  expect_message(searching("{train.loss: [dpo, causal_lm]}"), "train.loss");
  expect_message(searching("nowhere.yaml"), "nowhere.yaml");
  expect_message(searching(rates, {"federate.method", "local"}), "there is no server that would learn");
  expect_message(searching(rates, {"aggregator.robust_rule", "median"}), "this needs sums");
  expect_message(searching(rates, {"federate.keep_optimizer", "True"}), "each turn has a setting of its own");
  expect_message(searching(rates, {"federate.lora_aggregation", "flora"}),
                 "federate.lora_aggregation = flora");
  auto const outcome = train("bad", searching(rates, {"data.splits", "[1.0, 0.0, 0.0]"}));
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::HasSubstr("none of its clients has validation rows"));
  expect_trained("unused", {"hpo.fedex.use", "False", "hpo.fedex.ss", "nowhere.yaml"});
}

}  // namespace
}  // namespace fsllm::test
