// SPDX-License-Identifier: Apache-2.0
// Clients that train by MeZO (train.optimizer.type), through the program.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>

#include <fstream>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class ZerothOrder : public testing::Test {
 protected:
  Outcome train(std::string const& name, std::vector<std::string> const& more, int np = 2, int rounds = 1) {
    SmallRun small;
    small.rounds = rounds;
    small.optimizer = "{type: MeZO, lr: 0.01}";
    small.adapter = "{r: 4, lora_alpha: 8, lora_dropout: 0.2, target_modules: all-linear}";
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_trained(std::string const& name, std::vector<std::string> const& more, int np = 2,
                      int rounds = 1) {
    auto const outcome = train(name, more, np, rounds);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
  }
  TensorMap tensors(std::string const& folder, std::string const& name = "adapter_model") {
    return SafetensorsReader(dir_ / folder, name).tensors();
  }
  int64_t bytes_up(std::string const& name) {
    return read_events(dir_ / name / "metrics.jsonl").at(0).at("bytes_up").get<int64_t>();
  }
  TempDir dir_;
};

/// Two scalars a step, from which the server makes the weighted mean of what clients would learn alone: of
/// adapters with dropout and of all parameters.
TEST_F(ZerothOrder, TheServerReplaysWhatClientsLearn) {
  for (bool const full : {false, true}) {
    std::string const kind = full ? "full" : "lora", folder = full ? "model" : "adapter",
                      file = full ? "model" : "adapter_model";
    auto const with = [&](std::vector<std::string> more) {
      if (full)
        more.insert(more.end(), {"llm.adapter.use", "False", "train.optimizer", "{type: MeZO, lr: 0.0001}"});
      return more;
    };
    expect_trained(kind, with({}));
    expect_trained(kind + "_alone", with({"federate.method", "local"}));
    auto const index = nlohmann::json::parse(read_text(dir_ / kind / "shards/index.json"));
    TensorMap expected;
    double all = 0;
    for (auto const& client : index.at("clients")) all += client.at("train").at("rows").get<double>();
    for (int client = 1; client <= 3; ++client) {
      auto const rows =
          index.at("clients").at(static_cast<size_t>(client - 1)).at("train").at("rows").get<double>();
      for (auto const& [name, tensor] :
           tensors(fmt::format("{}_alone/{}/client_{:05d}", kind, folder, client), file)) {
        auto const part = tensor.to(at::kDouble).mul(rows / all);
        expected[name] = client == 1 ? part : expected[name].add(part);
      }
    }
    auto const got = tensors(kind + "/" + folder, file);
    ASSERT_EQ(got.size(), expected.size());
    for (auto const& [name, tensor] : got) {
      double const size = expected.at(name).abs().max().item<double>();
      EXPECT_TRUE(tensors_near(tensor.to(at::kDouble), expected.at(name), 1e-6 * size)) << kind << name;
    }
  }
  expect_trained("gradients", {"train.optimizer", "{type: SGD, lr: 0.01}"});
  EXPECT_LT(bytes_up("lora"), bytes_up("gradients") / 4);
  expect_trained("wide", {"llm.adapter.args", "[{r: 16, lora_alpha: 8, target_modules: all-linear}]"});
  EXPECT_EQ(bytes_up("lora"), bytes_up("wide")) << "however much is trained";
}

TEST_F(ZerothOrder, RunsThatGoOnEndWithTheSameBits) {
  std::vector<std::string> const constant{"federate.sample_client_num", "2"};
  expect_trained("three", constant, 2, 3);
  expect_trained("two", constant, 1, 2);
  auto resumed = constant;
  resumed.insert(resumed.end(), {"federate.total_round_num", "3", "--resume"});
  expect_trained("two", resumed, 3, 2);
  EXPECT_EQ(read_text(dir_ / "three/adapter/adapter_model.safetensors") ==
                read_text(dir_ / "two/adapter/adapter_model.safetensors"),
            true);
}

/// FS-LLM's name of the trainer, whatever its optimizer.type.
TEST_F(ZerothOrder, FsLlmsTrainerMeansTheSame) {
  expect_trained("ours", {});
  expect_trained("theirs", {"trainer.type", "mezotrainer", "train.optimizer",
                            "{type: SGD, lr: 0.01, weight_decay: 0.0}"});
  EXPECT_EQ(read_text(dir_ / "ours/adapter/adapter_model.safetensors") ==
                read_text(dir_ / "theirs/adapter/adapter_model.safetensors"),
            true);
}

TEST_F(ZerothOrder, AllClientsTrainInOneManner) {
  std::ofstream(dir_ / "clients.yaml") << "client_2: {train: {optimizer: {type: SGD}}}\n";
  auto const outcome = train("bad", {"--client_cfg", (dir_ / "clients.yaml").string()}, 0);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::HasSubstr("client_2 has train.optimizer.type = SGD (the run's is MeZO"));
  std::ofstream(dir_ / "clients.yaml")
      << "client_2: {train: {optimizer: {lr: 0.02}, local_update_steps: 5}}\n";
  expect_trained("unequal", {"--client_cfg", (dir_ / "clients.yaml").string()});
}

/// GSM8K and a language model: forward passes alone teach it.
TEST(ZerothOrderOnText, TheHeldOutLossFalls) {
  FSLLM_NEED_TEST_DATA("models/stories260K");
  TempDir dir;
  auto const config = write_config(
      dir.path(), stories_on_gsm8k(dir.path(), 160, 8,
                                   "expname: run\nfederate: {client_num: 4, total_round_num: 3}\n"
                                   "train: {local_update_steps: 20, optimizer: {type: MeZO, lr: 0.001}}\n"));
  auto const outcome = run(dir.path(), 2, {"fsllm_hpc", "--cfg", config.string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  std::vector<double> losses;
  for (auto const& event : read_events(dir / "run/metrics.jsonl"))
    if (event.at("event") != "end") losses.push_back(event.at("val").at("loss_per_token").get<double>());
  ASSERT_EQ(losses.size(), 4U);
  for (size_t round = 1; round < losses.size(); ++round) EXPECT_LT(losses[round], losses[round - 1] - 0.05);
}

}  // namespace
}  // namespace fsllm::test
