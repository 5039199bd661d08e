// SPDX-License-Identifier: Apache-2.0
// Clients that keep a part of the parameters to themselves.
#include <ATen/core/Tensor.h>
#include <fmt/core.h>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

class Personal : public testing::Test {
 protected:
  Outcome train(std::string const& name, std::vector<std::string> const& more, int np = 2) {
    SmallRun small;
    small.rounds = 1;
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  TensorMap adapter(std::string const& name, int client) {
    auto const folder = dir_ / name / fmt::format("adapter/client_{:05d}", client);
    return SafetensorsReader(folder, "adapter_model").tensors();
  }
  TempDir dir_;
};

/// FedSA-LoRA after one round: every client has the mean of all A and the B that it would have learned alone.
TEST_F(Personal, LocalParametersStayOnTheirClient) {
  ASSERT_EQ(train("alone", {"federate.method", "local"}).exit_code, 0);
  auto const outcome = train("shared", {"personalization.local_param", "[lora_B]"});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  ASSERT_EQ(train("fedavg", {}).exit_code, 0);
  auto const fedavg = SafetensorsReader(dir_ / "fedavg/adapter", "adapter_model").tensors();
  bool differs = false;
  for (int client = 1; client <= 3; ++client) {
    auto const alone = adapter("alone", client), shared = adapter("shared", client);
    ASSERT_EQ(shared.size(), fedavg.size());
    for (auto const& [name, tensor] : shared) {
      bool const local = name.find("lora_B") != std::string::npos;
      EXPECT_TRUE(tensors_near(tensor, local ? alone.at(name) : fedavg.at(name), local ? 0 : 1e-7)) << name;
      differs = differs || (local && !tensor.equal(fedavg.at(name)));
    }
  }
  EXPECT_TRUE(differs);
  auto const bytes = [&](std::string const& name) {
    return read_events(dir_ / name / "metrics.jsonl").back().at("bytes_up").get<int64_t>();
  };
  EXPECT_LT(bytes("shared"), bytes("fedavg"));
}

/// Without λ a client's own model is the one that it would train alone; with it, in the first round, the one
/// that FedProx would; the global model is FedAvg's.
TEST_F(Personal, DittoTrainsAGlobalAndAnOwnModel) {
  std::vector<std::string> const two{"federate.total_round_num", "2"};
  auto const with = [&](std::vector<std::string> words, bool both = true) {
    if (both) words.insert(words.end(), two.begin(), two.end());
    return words;
  };
  for (auto const& [name, words] : std::map<std::string, std::vector<std::string>>{
           {"alone", with({"federate.method", "local"})},
           {"fedavg", with({})},
           {"free", with({"federate.method", "ditto", "personalization.regular_weight", "0"})},
           {"near", with({"federate.method", "local", "fedprox.use", "True", "fedprox.mu", "0.5"}, false)},
           {"held", with({"federate.method", "ditto", "personalization.regular_weight", "0.5"}, false)},
           {"other", with({"federate.method", "ditto", "personalization.regular_weight", "0",
                           "personalization.local_update_steps", "5", "personalization.lr", "0.1"},
                          false)},
           {"other_alone",
            with({"federate.method", "local", "train.local_update_steps", "5", "train.optimizer.lr", "0.1"},
                 false)}}) {
    auto const outcome = train(name, words);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err;
  }
  auto const same = [](TensorMap const& a, TensorMap const& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](auto const& x, auto const& y) {
      return x.first == y.first && x.second.equal(y.second);
    });
  };
  auto const global = [&](std::string const& name) {
    return SafetensorsReader(dir_ / name / "adapter", "adapter_model").tensors();
  };
  EXPECT_TRUE(same(global("free"), global("fedavg")));
  for (int client = 1; client <= 3; ++client) {
    EXPECT_TRUE(same(adapter("free", client), adapter("alone", client))) << client;
    EXPECT_TRUE(same(adapter("held", client), adapter("near", client))) << client;
    EXPECT_TRUE(same(adapter("other", client), adapter("other_alone", client))) << client;
    EXPECT_FALSE(same(adapter("free", client), global("free"))) << client;
  }
}

/// While B = 0 all components say the same, so that each counts half: after a round the first is what FedAvg
/// makes with half the learning rate. What a client is judged by is the mixture, and mixture.json has its
/// weights.
TEST_F(Personal, FedEmTrainsAMixture) {
  std::vector<std::string> const fedem{
      "federate.method", "FedEM", "model.model_num_per_trainer", "2", "data.splits", "[0.7, 0.3, 0.0]"};
  auto const with = [](std::vector<std::string> words, std::vector<std::string> const& more) {
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  auto const folder = [&](std::string const& name) {
    return SafetensorsReader(dir_ / name, "adapter_model").tensors();
  };
  auto const trained = [&](std::string const& name, std::vector<std::string> const& words, int np = 2) {
    auto const outcome = train(name, words, np);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err;
  };
  trained("one", fedem);
  trained("half", {"train.optimizer.lr", "0.25", "data.splits", "[0.7, 0.3, 0.0]"});
  auto const half = folder("half/adapter"), first = folder("one/adapter/component_1"),
             second = folder("one/adapter/component_2");
  for (auto const& [name, tensor] : half) {
    EXPECT_TRUE(tensors_near(first.at(name), tensor, 1e-6)) << name;
    EXPECT_FALSE(tensors_near(second.at(name), tensor, 1e-3)) << name;
  }
  auto const more = with(fedem, {"federate.total_round_num", "4", "federate.sample_client_num", "2"});
  trained("whole", more);
  trained("stopped", with(fedem, {"federate.total_round_num", "2", "federate.sample_client_num", "2"}), 3);
  trained("stopped", with(more, {"--resume"}), 1);
  auto const events = read_events(dir_ / "whole/metrics.jsonl");
  auto const loss = [](nlohmann::json const& event) {
    return event.at("val").at("loss_per_token").get<double>();
  };
  EXPECT_LT(loss(events.at(4)), loss(events.at(0)));
  EXPECT_EQ(loss(events.at(4)), loss(read_events(dir_ / "stopped/metrics.jsonl").at(4)));
  auto const mixtures = nlohmann::json::parse(read_text(dir_ / "whole/adapter/mixture.json"));
  EXPECT_EQ(read_text(dir_ / "whole/adapter/mixture.json"), read_text(dir_ / "stopped/adapter/mixture.json"));
  EXPECT_EQ(mixtures.size(), 3U);
  int parted = 0;  // one client took part in the first round alone, before components differed
  for (auto const& [client, weights] : mixtures.items()) {
    EXPECT_NEAR(weights.at(0).get<double>() + weights.at(1).get<double>(), 1, 1e-12) << client;
    parted += std::abs(weights.at(0).get<double>() - 0.5) > 1e-3;
    int const main = weights.at(0) < weights.at(1) ? 2 : 1;
    EXPECT_EQ(read_text(dir_ / "whole/adapter" / client / "adapter_model.safetensors") ==
                  read_text(dir_ / fmt::format("whole/adapter/component_{}/adapter_model.safetensors", main)),
              true);
  }
  EXPECT_EQ(parted, 2);
  auto const refused = [&](std::vector<std::string> const& words, std::string const& message) {
    auto const outcome = train("bad", words, 2);
    EXPECT_EQ(outcome.exit_code, 2) << message;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused({"federate.method", "fedem"}, "a mixture of one is FedAvg");
  refused(with(fedem, {"llm.adapter.use", "False"}), "with full parameters");
  refused(with(fedem, {"llm.adapter.args", "[{adapter_method: ia3}]"}), "would begin alike");
  refused(with(fedem, {"federate.lora_aggregation", "ffa"}), "keep a state of their own");
}

/// One round of epochs: B_k is what B of RoLoRA's first round is for that client alone, and A the weighted
/// mean of what its second round, with that B, makes of A.
TEST_F(Personal, FedRepFitsOwnParametersFirst) {
  std::vector<std::string> const epochs{"train.batch_or_epoch", "epoch", "train.local_update_steps", "1"};
  auto const with = [&](std::vector<std::string> words) {
    words.insert(words.end(), epochs.begin(), epochs.end());
    return words;
  };
  auto const outcome =
      train("fedrep", with({"federate.method", "fedrep", "personalization.local_param", "[lora_B]",
                            "personalization.lr_linear", "0.5", "personalization.lr_feature", "0.5",
                            "personalization.epoch_linear", "1"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  auto const fedrep = adapter("fedrep", 1);
  TensorMap mean;
  double rows = 0;
  for (auto const& line : read_events(dir_ / "fedrep/metrics_clients.jsonl"))
    rows += line.at("train").at("samples").get<double>();
  for (auto const& line : read_events(dir_ / "fedrep/metrics_clients.jsonl")) {
    auto const client = line.at("client").get<int>();
    auto const name = fmt::format("alone_{}", client);
    ASSERT_EQ(train(name,
                    with({"federate.client_idx_for_local_train", std::to_string(client),
                          "federate.lora_aggregation", "rolora", "federate.total_round_num", "2"}),
                    0)
                  .exit_code,
              0);
    auto const alone = SafetensorsReader(dir_ / name / "adapter", "adapter_model").tensors();
    auto const own = adapter("fedrep", client);
    for (auto const& [parameter, tensor] : alone) {
      if (parameter.find("lora_B") != std::string::npos) {
        EXPECT_TRUE(tensors_near(own.at(parameter), tensor, 1e-7)) << parameter;
      } else {
        auto const share = tensor.mul(line.at("train").at("samples").get<double>() / rows);
        auto& sum = mean[parameter];
        sum = sum.defined() ? sum.add(share) : share;
        EXPECT_TRUE(own.at(parameter).equal(fedrep.at(parameter))) << "A is the same for all";
      }
    }
  }
  ASSERT_FALSE(mean.empty());
  for (auto const& [parameter, tensor] : mean)
    EXPECT_TRUE(tensors_near(fedrep.at(parameter), tensor, 1e-6)) << parameter;
}

/// With one step for each batch θ begins at w_k, so the first step feels no λ; with ηλ = 1 w_k becomes θ.
TEST_F(Personal, PFedMeKeepsItsModels) {
  std::vector<std::string> const one_step{"train.local_update_steps", "1"};
  auto const with = [&](std::vector<std::string> words) {
    words.insert(words.end(), one_step.begin(), one_step.end());
    return words;
  };
  ASSERT_EQ(train("fedavg", with({})).exit_code, 0);
  ASSERT_EQ(train("alone", with({"federate.method", "local"})).exit_code, 0);
  auto const outcome = train("pfedme", with({"federate.method", "pFedMe", "personalization.regular_weight",
                                             "2", "personalization.K", "1"}));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  auto const fedavg = SafetensorsReader(dir_ / "fedavg/adapter", "adapter_model").tensors();
  for (auto const& [name, tensor] : SafetensorsReader(dir_ / "pfedme/adapter", "adapter_model").tensors())
    EXPECT_TRUE(tensors_near(tensor, fedavg.at(name), 1e-7)) << name;
  for (int client = 1; client <= 3; ++client) {
    auto const alone = adapter("alone", client);
    for (auto const& [name, tensor] : adapter("pfedme", client))
      EXPECT_TRUE(tensor.equal(alone.at(name))) << name;
  }
}

/// A run that goes on from the checkpoint before the last ends with the same files.
TEST_F(Personal, StatesGoOnAfterAResume) {
  for (auto const& [name, words] : std::map<std::string, std::vector<std::string>>{
           {"pfedme", {"federate.method", "pfedme", "personalization.regular_weight", "1"}},
           {"fedrep",
            {"federate.method", "fedrep", "personalization.local_param", "[lora_B]",
             "federate.keep_optimizer", "True"}}}) {
    auto all = words;
    all.insert(all.end(), {"federate.total_round_num", "3", "federate.sample_client_num", "2",
                           "train.optimizer", "{type: AdamW, lr: 0.01}"});
    ASSERT_EQ(train(name, all).exit_code, 0);
    std::map<int, TensorMap> before;
    for (auto const& entry : std::filesystem::directory_iterator(dir_ / name / "adapter"))
      if (auto const folder = entry.path().filename().string(); folder.starts_with("client_"))
        before[std::stoi(folder.substr(7))] = SafetensorsReader(entry.path(), "adapter_model").tensors();
    ASSERT_GE(before.size(), 2U);
    std::filesystem::resize_file(dir_ / name / "checkpoints/round_000003/state.h5", 1000);
    std::filesystem::remove_all(dir_ / name / "adapter");
    auto const outcome = run(dir_.path(), 3, {"fsllm_hpc", "--resume", (dir_ / name).string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    for (auto const& [client, tensors] : before)
      for (auto const& [parameter, tensor] : adapter(name, client))
        EXPECT_TRUE(tensor.equal(tensors.at(parameter))) << name << client << parameter;
  }
}

TEST_F(Personal, WordsAreChecked) {
  auto const refused = [&](std::vector<std::string> const& more, std::string const& message) {
    auto const outcome = train("bad", more);
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused({"personalization.local_param", "[lora_C]"},
          "no parameter that is trained has 'lora_C' in its name");
  refused({"personalization.local_param", "[lora_A, lora_B]"}, "every parameter that is trained is local");
  refused({"personalization.local_param", "[lora_B]", "federate.method", "scaffold"},
          "clients keep a state of their own");
  refused({"personalization.local_param", "[lora_B]", "federate.method", "pfedme"},
          "clients keep a state of their own");
  refused(
      {"finetune.before_eval", "True", "finetune.simple_tuning", "True", "finetune.local_param", "[lora_C]"},
      "finetune.local_param: no parameter that is trained has 'lora_C' in its name");
  refused({"federate.method", "FedRep"}, "personalization.local_param names no parameters");
}

}  // namespace
}  // namespace fsllm::test
