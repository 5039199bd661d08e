// SPDX-License-Identifier: Apache-2.0
// Rules for the factors of LoRA through the program: against what the clients would have learned alone, with
// unequal rows and ranks, and the models that are written.
#include <ATen/core/Tensor.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/mm.h>
#include <fmt/core.h>

#include <cmath>
#include <fstream>

#include "federation.hpp"
#include "fsllm/io/safetensors.hpp"

namespace fsllm::test {
namespace {

constexpr int64_t kRank = 4;
constexpr double kScale = 2;  // lora_alpha / r
/// Of the sketched error from the exact one on this fixture, relative: measured over 24 seeds (mean -0.001).
constexpr double kSketchDeviation = 0.138;
constexpr int64_t kRanks[] = {4, 1, 2};

class FactorRules : public testing::Test {
 protected:
  Outcome train(std::string const& name, std::vector<std::string> const& more, int np = 2,
                std::string const& splits = "[1.0, 0.0, 0.0]") {
    SmallRun small;
    small.rounds = 1;
    small.splits = splits;
    std::vector<std::string> words{
        "fsllm_hpc", "--cfg", write_config(dir_.path(), small.yaml(dir_.path())).string(), "expname", name};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_trained(std::string const& name, std::vector<std::string> const& more, int np = 2,
                      std::string const& splits = "[1.0, 0.0, 0.0]") {
    auto const outcome = train(name, more, np, splits);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
  }
  TensorMap tensors(std::string const& folder, std::string const& name = "adapter_model") {
    return SafetensorsReader(dir_ / folder, name).tensors();
  }
  /// Clients with ranks kRanks and the run's lora_alpha.
  std::vector<std::string> unequal_ranks() {
    std::ofstream(dir_ / "clients.yaml") << "client_2: {llm: {adapter: {args: [{r: 1}]}}}\n"
                                            "client_3: {llm: {adapter: {args: [{r: 2}]}}}\n";
    return {"--client_cfg", (dir_ / "clients.yaml").string()};
  }
  /// What each client learns alone in a round with LoRA of its own rank: s_k B_k A_k by module, in float64.
  std::map<std::string, std::vector<at::Tensor>> alone(bool unequal) {
    std::map<std::string, std::vector<at::Tensor>> products;
    for (int client = 1; client <= 3; ++client) {
      auto const rank = unequal ? kRanks[client - 1] : kRank;
      auto const name = fmt::format("alone_{}", rank);
      if (!std::filesystem::exists(dir_ / name))
        expect_trained(name,
                       {"federate.method", "local", "llm.adapter.args",
                        fmt::format("[{{r: {}, lora_alpha: 8, target_modules: [q_proj, v_proj]}}]", rank)});
      auto const adapter = tensors(fmt::format("{}/adapter/client_{:05d}", name, client));
      for (auto const& [a_name, a] : adapter) {
        auto const at = a_name.find(".lora_A.weight");
        if (at == std::string::npos) continue;
        auto const b = adapter.at(a_name.substr(0, at) + ".lora_B.weight").to(at::kDouble);
        products[a_name.substr(17, at - 17)].push_back(
            b.mm(a.to(at::kDouble)).mul(8.0 / static_cast<double>(rank)));
      }
    }
    return products;
  }
  /// p_k of the run's shards.
  std::vector<double> weights(std::string const& name) {
    auto const index = nlohmann::json::parse(read_text(dir_ / name / "shards/index.json"));
    std::vector<double> rows;
    double sum = 0;
    for (auto const& client : index.at("clients")) {
      rows.push_back(client.at("train").at("rows").get<double>());
      sum += rows.back();
    }
    for (auto& weight : rows) weight /= sum;
    return rows;
  }
  /// s B A of an adapter folder by module.
  std::map<std::string, at::Tensor> product(std::string const& folder) {
    std::map<std::string, at::Tensor> all;
    auto const adapter = tensors(folder);
    for (auto const& [a_name, a] : adapter)
      if (auto const at = a_name.find(".lora_A.weight"); at != std::string::npos)
        all[a_name.substr(17, at - 17)] = adapter.at(a_name.substr(0, at) + ".lora_B.weight")
                                              .to(at::kDouble)
                                              .mm(a.to(at::kDouble))
                                              .mul(kScale);
    return all;
  }
  std::map<std::string, at::Tensor> mean(std::map<std::string, std::vector<at::Tensor>> const& products,
                                         std::vector<double> const& p) {
    std::map<std::string, at::Tensor> all;
    for (auto const& [module, clients] : products) {
      auto sum = clients[0].mul(p[0]);
      for (size_t k = 1; k < clients.size(); ++k) sum = sum.add(clients[k], p[k]);
      all[module] = sum;
    }
    return all;
  }
  double val_loss(std::string const& name, size_t event) {
    return read_events(dir_ / name / "metrics.jsonl").at(event).at("val").at("loss_per_token").get<double>();
  }
  TempDir dir_;
};

at::Tensor best(at::Tensor const& matrix) {
  auto const [u, s, vt] = at::linalg_svd(matrix, false);
  return u.narrow(1, 0, kRank).mul(s.narrow(0, 0, kRank)).mm(vt.narrow(0, 0, kRank));
}

void expect_near(std::map<std::string, at::Tensor> const& got,
                 std::map<std::string, at::Tensor> const& wanted, std::string const& what,
                 double tolerance = 1e-5) {
  ASSERT_EQ(got.size(), wanted.size());
  for (auto const& [module, matrix] : wanted)
    EXPECT_LT(got.at(module).to(at::kDouble).sub(matrix).norm().item<double>(),
              tolerance * matrix.norm().item<double>())
        << what << " " << module;
}

/// Every exact rule, with equal and unequal ranks.
TEST_F(FactorRules, GiveTheMeanOfWhatClientsLearnAlone) {
  for (bool const unequal : {false, true}) {
    auto const more = unequal ? unequal_ranks() : std::vector<std::string>{};
    auto const run_of = [&](std::string const& rule) {
      auto const name = rule + (unequal ? "_unequal" : "");
      auto words = more;
      words.insert(words.end(), {"federate.lora_aggregation", rule});
      expect_trained(name, words);
      return name;
    };
    // Alone a client has factors of its own rank, here padded ones: the products round otherwise in each
    // step.
    double const tolerance = unequal ? 3e-5 : 1e-5;
    auto const flora = run_of("flora");
    auto const exact = mean(alone(unequal), weights(flora));
    expect_near(tensors(flora + "/adapter", "trained_update"), exact, flora, tolerance);
    expect_near(tensors(run_of("fedex") + "/adapter", "trained_update"), exact, "fedex", tolerance);
    std::map<std::string, at::Tensor> truncated;
    for (auto const& [module, matrix] : exact) truncated[module] = best(matrix);
    expect_near(product(flora + "/adapter"), truncated, "flora's adapter", tolerance);
    expect_near(product(run_of("flexlora") + "/adapter"), truncated, "flexlora", tolerance);
    expect_near(product(run_of("fedask") + "/adapter"), truncated, "fedask", tolerance);
  }
}

/// What every rule writes is what transformers + peft compute with: adapter/ (the best of its rank where the
/// frozen matrices took something up, and the log tells what it lacks), and model/.
TEST_F(FactorRules, PeftComputesTheSame) {
  ScoredByPeft scored;
  if (!scored.possible()) GTEST_SKIP() << "no Python with transformers and peft (FSLLM_TEST_PYTHON)";
  for (std::string const rule :
       {"ffa", "rolora", "fedsvd", "fedask", "flexlora", "hetlora", "raflora", "flora", "fedex", "frlora"}) {
    auto const outcome = train(rule, {"federate.lora_aggregation", rule, "federate.total_round_num", "2"});
    ASSERT_EQ(outcome.exit_code, 0) << rule << outcome.err;
    scored.add(reference_dir("llama"), dir_ / rule / "adapter");
    bool const overlaid = std::filesystem::exists(dir_ / rule / "model");
    EXPECT_EQ(overlaid, rule == "flora" || rule == "fedex" || rule == "frlora");
    if (!overlaid) continue;
    scored.add(dir_ / rule / "model");
    EXPECT_THAT(outcome.out + outcome.err,
                testing::HasSubstr("of what was trained (relative Frobenius norm)"))
        << rule;
  }
  scored.expect_equal();
}

/// fsllm_inspect --clients: the exact error of an aggregation, against dense matrices and the run's own
/// figures.
TEST_F(FactorRules, TheExactAggregationErrorIsInspected) {
  expect_trained("averaged", {});
  auto const p = weights("averaged");
  auto const inspected = [&](std::string const& adapter, std::string const& clients,
                             std::string const& given) {
    auto const outcome = run(dir_.path(), 0,
                             {"fsllm_inspect", (dir_ / adapter).string(), "--clients",
                              (dir_ / clients).string(), "--weights", given, "--json"});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return nlohmann::json::parse(outcome.out);
  };
  for (bool const unequal : {false, true}) {
    auto const exact = mean(alone(unequal), p);
    auto words = unequal ? unequal_ranks() : std::vector<std::string>{};
    words.insert(words.end(), {"federate.lora_aggregation", unequal ? "hetlora" : "fedavg"});
    std::string const name = unequal ? "hetlora" : "fedavg";
    expect_trained(name, words);
    std::filesystem::create_directory(dir_ / (name + "_clients"));
    for (int client = 1; client <= 3; ++client)
      std::filesystem::copy(
          dir_ / fmt::format("alone_{}/adapter/client_{:05d}", unequal ? kRanks[client - 1] : kRank, client),
          dir_ / fmt::format("{}_clients/client_{:05d}", name, client));
    auto const facts =
        inspected(name + "/adapter", name + "_clients", fmt::format("{},{},{}", p[0], p[1], p[2]));
    double errors = 0, sizes = 0;
    for (auto const& [module, made] : product(name + "/adapter")) {
      double const error = exact.at(module).sub(made).norm().item<double>(),
                   size = exact.at(module).norm().item<double>();
      EXPECT_NEAR(facts.at("modules").at(module).get<double>(), error / size, 1e-9);
      errors += error * error;
      sizes += size * size;
    }
    double const error = facts.at("aggregation_error");
    EXPECT_NEAR(error, std::sqrt(errors / sizes), 1e-9);
    EXPECT_GT(error, 1e-3);
    auto const round = read_events(dir_ / name / "metrics.jsonl").at(1);
    double const told = round.at("aggregation_error");
    EXPECT_NEAR(told, error, (unequal ? 1e-5 : 3 * kSketchDeviation) * error) << name;
  }
  auto const other =
      inspected("fedavg/adapter", "fedavg_clients", "1,1,4").at("aggregation_error").get<double>();
  EXPECT_GT(other, 0.1) << "other weights are another mean";
  auto const refused = [&](std::vector<std::string> words, std::string const& message) {
    words.insert(words.begin(), {"fsllm_inspect", (dir_ / "fedavg/adapter").string()});
    auto const outcome = run(dir_.path(), 0, words);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  auto const clients = (dir_ / "fedavg_clients").string();
  refused({"--clients", clients, "--weights", "1,2"}, "2 numbers for 3 clients");
  refused({"--clients", clients, "--weights", "1,-2,3"}, "'-2' is no number from 0");
  refused({"--clients", clients, "--weights", "0,0,0"}, "all are 0");
  refused({"--weights", "1,2,3"}, "without --clients");
  refused({"--clients", (dir_ / "fedavg").string() + "/shards"}, "no folder with an adapter");
  std::filesystem::copy(reference_dir("adapters") / "ia3_llama", dir_ / "fedavg_clients/client_00004",
                        std::filesystem::copy_options::recursive);
  refused({"--clients", clients}, "holds no factors of a product");
}

/// model/ is what the run's last evaluation saw, and what fsllm_export makes of the adapter folder; best/
/// too.
TEST_F(FactorRules, TheTrainedModelIsWritten) {
  for (std::string const rule : {"flora", "fedex", "frlora"}) {
    // The head is a target too.
    expect_trained(rule,
                   {"federate.lora_aggregation", rule, "federate.total_round_num", "2", "llm.adapter.args",
                    "[{r: 4, lora_alpha: 8, target_modules: [q_proj, v_proj, lm_head]}]"},
                   2, "[0.7, 0.3, 0.0]");
    expect_trained(rule + "_again", {"model.type", (dir_ / rule / "model").string()}, 0, "[0.7, 0.3, 0.0]");
    double const end = val_loss(rule, 2);
    EXPECT_NEAR(val_loss(rule + "_again", 0), end, 1e-5 * end) << rule;
    EXPECT_GT(std::abs(val_loss(rule, 1) - end), 1e-3 * end) << rule;
    auto const outcome = run(dir_.path(), 0,
                             {"fsllm_export", "--model", reference_dir("llama").string(), "--adapter",
                              (dir_ / rule / "adapter").string(), "--to", "merged", "--out",
                              (dir_ / (rule + "_merged")).string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    EXPECT_EQ(read_text(dir_ / (rule + "_merged") / "model.safetensors") ==
                  read_text(dir_ / rule / "model/model.safetensors"),
              true);
    EXPECT_TRUE(std::filesystem::exists(dir_ / rule / "best/trained_update.safetensors"));
  }
}

/// The overlay is part of a checkpoint.
TEST_F(FactorRules, RunsThatGoOnEndWithTheSameBits) {
  for (std::string const rule : {"flora", "frlora"}) {
    std::vector<std::string> const three{"federate.lora_aggregation", rule, "federate.total_round_num", "3"};
    expect_trained(rule, three);
    expect_trained(rule + "_stopped", {"federate.lora_aggregation", rule});
    auto on = three;
    on.push_back("--resume");
    expect_trained(rule + "_stopped", on, 3);
    for (auto const* file : {"adapter/trained_update.safetensors", "adapter/adapter_model.safetensors",
                             "model/model.safetensors"})
      EXPECT_EQ(read_text(dir_ / rule / file) == read_text(dir_ / (rule + "_stopped") / file), true) << file;
  }
}

/// Fed-SB's A is chosen once, what is written is an ordinary LoRA with the run's losses, and a run that goes
/// on has the same bits.
TEST_F(FactorRules, CoresAreTrainedBetweenFixedFactors) {
  auto const words = [](std::string const& rounds) {
    return std::vector<std::string>{"federate.lora_aggregation", "fedsb", "federate.total_round_num", rounds};
  };
  std::string const splits = "[0.7, 0.3, 0.0]";
  expect_trained("one", words("1"), 1, splits);
  expect_trained("three", words("3"), 2, splits);
  auto const one = tensors("one/adapter"), three = tensors("three/adapter");
  ASSERT_FALSE(one.empty());
  for (auto const& [name, tensor] : three) {
    ASSERT_TRUE(name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")) << name;
    bool const fixed = name.ends_with(".lora_A.weight");
    EXPECT_EQ(tensor.equal(one.at(name)), fixed) << name;
    if (fixed) {
      EXPECT_TRUE(tensors_near(tensor.mm(tensor.t()), at::eye(kRank), 1e-6)) << name;
    }
  }
  expect_trained("again", {"llm.adapter.init_from", (dir_ / "three/adapter").string()}, 0, splits);
  EXPECT_NEAR(val_loss("again", 0), val_loss("three", 3), 1e-5);
  EXPECT_GT(std::abs(val_loss("three", 1) - val_loss("three", 3)), 1e-4);
  auto const event = read_events(dir_ / "three/metrics.jsonl").at(3);
  EXPECT_EQ(event.at("aggregation_error").get<double>(), 0);
  expect_trained("stopped", words("2"), 2, splits);
  auto on = words("3");
  on.push_back("--resume");
  expect_trained("stopped", on, 3, splits);
  for (auto const* file : {"adapter/adapter_model.safetensors", "best/adapter_model.safetensors"})
    EXPECT_EQ(read_text(dir_ / "three" / file) == read_text(dir_ / "stopped" / file), true) << file;
}

/// r² values a matrix and direction, whatever its size.
TEST_F(FactorRules, CoresTravelAlone) {
  std::map<std::string, int64_t> up, down;
  for (std::string const rule : {"fedsb", "fedavg"}) {
    expect_trained(rule, {"federate.lora_aggregation", rule, "federate.total_round_num", "2"});
    auto const comm = read_events(dir_ / rule / "metrics.jsonl").at(2);
    up[rule] = comm.at("bytes_up").get<int64_t>();
    down[rule] = comm.at("bytes_down").get<int64_t>();
  }
  EXPECT_LT(up["fedsb"], up["fedavg"] / 4);
  EXPECT_LT(down["fedsb"], down["fedavg"] / 4);
}

/// Neither way: FFA's A stays, RoLoRA's factors take turns.
TEST_F(FactorRules, FactorsThatRestDoNotTravel) {
  std::map<std::string, std::vector<int64_t>> down;
  for (std::string const rule : {"fedavg", "ffa", "rolora"}) {
    expect_trained(rule, {"federate.lora_aggregation", rule, "federate.total_round_num", "2"});
    for (auto const& event : read_events(dir_ / rule / "metrics.jsonl"))
      if (event.at("event") == "round") down[rule].push_back(event.at("bytes_down").get<int64_t>());
  }
  for (size_t round = 0; round < 2; ++round) {
    EXPECT_LT(down["ffa"][round], down["fedavg"][round]);
    EXPECT_EQ(down["ffa"][round], down["ffa"][0]);
  }
  EXPECT_LT(down["rolora"][0] + down["rolora"][1], down["fedavg"][0] * 5 / 4);
}

TEST_F(FactorRules, CoresNeedAnOrdinaryLora) {
  auto const refused = [&](std::string const& args, std::string const& message) {
    auto const outcome = train("bad", {"federate.lora_aggregation", "fedsb", "llm.adapter.args", args}, 0);
    EXPECT_EQ(outcome.exit_code, 2) << args;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  refused("[{r: 4, use_dora: True}]", "nothing that is trained is a product of factors");
  refused("[{adapter_method: ia3}]", "nothing that is trained is a product of factors");
  refused("[{r: 4, target_modules: [embed_tokens, q_proj]}]", "is an embedding");
  refused("[{r: 40, target_modules: [q_proj, k_proj]}]", "has rank 40");
}

TEST_F(FactorRules, UnequalRanksNeedARule) {
  auto words = unequal_ranks();
  auto outcome = train("bad", words);
  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, testing::HasSubstr("client_2 has another r or lora_alpha"));
  words.push_back("--check");
  EXPECT_EQ(train("bad", words, 0).exit_code, 2);
  auto const refused = [&](std::string const& client, std::string const& message) {
    std::ofstream(dir_ / "clients.yaml") << client;
    auto const bad = train(
        "bad", {"--client_cfg", (dir_ / "clients.yaml").string(), "federate.lora_aggregation", "flora"}, 0);
    EXPECT_EQ(bad.exit_code, 2) << client;
    EXPECT_THAT(bad.err, testing::HasSubstr(message));
  };
  refused("client_2: {llm: {adapter: {args: [{r: 8}]}}}\n", "llm.adapter.args[0].r");
  refused("client_2: {llm: {adapter: {args: [{lora_dropout: 0.5}]}}}\n", "lora_dropout");
}

}  // namespace
}  // namespace fsllm::test
