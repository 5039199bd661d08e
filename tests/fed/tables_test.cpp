// SPDX-License-Identifier: Apache-2.0
// Every row of the tables of federated algorithms: defaults, descriptions, states, and all combinations.
#include <ATen/ATen.h>

#include <regex>

#include "fsllm/fed/config.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

FedAlgorithm load(std::string const& yaml) {
  auto config = Config::parse(yaml, "test.yaml");
  return load_fed_config(config).algorithm;
}

TensorMap parameters(double value) {
  return {{"m.lora_A.weight", at::full({2, 6}, value)},
          {"m.lora_B.weight", at::full({5, 2}, 2 * value)},
          {"z.bias", at::full({3}, value)}};
}

LoraFactors factors() {
  LoraFactors lora;
  lora.targets.push_back({"m", "m.lora_A.weight", "m.lora_B.weight", 2});
  lora.fresh = [](uint64_t) { return parameters(0.5); };
  lora.matrix = [](std::string const&) { return at::eye(5, 6); };
  return lora;
}

template <class Table>
void expect_described(Table const& table) {
  for (auto const& row : table) {
    EXPECT_FALSE(row.what.empty()) << row.name;
    EXPECT_TRUE(std::regex_match(row.name, std::regex("[a-z]+"))) << row.name;
  }
}

TEST(Tables, RowsAreDescribedAndDeclared) {
  expect_described(algorithm_table());
  expect_described(lora_aggregation_table());
  expect_described(robust_rule_table());
  auto config = Config::parse("", "test.yaml");
  load_fed_config(config);
  std::map<std::string, std::string> described;
  for (auto const& key : config.keys()) described[key.path] = key.doc;
  for (auto const& row : algorithm_table())
    EXPECT_NE(described.at("federate.method").find(row.name + ": " + row.what), std::string::npos)
        << row.name;
  for (auto const& row : lora_aggregation_table())
    EXPECT_NE(described.at("federate.lora_aggregation").find(row.name + ": " + row.what), std::string::npos)
        << row.name;
  for (auto const& row : robust_rule_table())
    EXPECT_NE(described.at("aggregator.robust_rule").find(row.name + ": " + row.what), std::string::npos)
        << row.name;
}

/// Three steps are one step, a state that was saved and loaded, and two steps.
TEST(Tables, StatesOfTheServerGoOn) {
  for (auto const& row : algorithm_table())
    for (auto const* more : {"", ", lora_aggregation: fedsvd", ", lora_aggregation: frlora"}) {
      FedAlgorithm algorithm;
      try {
        algorithm = load("federate: {method: " + row.name + more + "}");
        bind_factors(algorithm, factors());
      } catch (Error const&) {
        continue;  // CombinationsRunOrSayWhyNot
      }
      if (algorithm.kind != Kind::sum || algorithm.summed || algorithm.second) continue;
      auto const steps = [&](bool stops) {
        ServerState server{parameters(0.25), {}, {}, {}};
        if (algorithm.server_extra) server.extra = algorithm.server_extra(server.weights);
        auto step = algorithm.server_step(server.weights);
        for (int round = 0; round < 3; ++round) {
          step->step(server, {trained_part(algorithm, parameters(0.1 * (round + 1)), round), {}, {}},
                     {round, 1, {}});
          if (!stops || round != 0) continue;
          auto const state = clone(step->state());
          step = algorithm.server_step(server.weights);
          step->load_state(state);
        }
        return server.weights;
      };
      auto const expected = steps(false), actual = steps(true);
      for (auto const& [name, tensor] : expected)
        EXPECT_TRUE(tensor.equal(actual.at(name))) << row.name << name;
    }
}

/// Each method with each rule for factors and each rule for updates.
TEST(Tables, CombinationsRunOrSayWhyNot) {
  int refused = 0, taken = 0;
  for (auto const& method : algorithm_table())
    for (auto const& lora : lora_aggregation_table())
      for (auto const& rule : robust_rule_table()) {
        auto const yaml =
            fmt::format("{{federate: {{method: {}, lora_aggregation: {}}}, aggregator: {{robust_rule: {}}}}}",
                        method.name, lora.name, rule.name);
        try {
          auto algorithm = load(yaml);
          bind_factors(algorithm, factors());
          check_parameters(algorithm, parameters(0));
          ++taken;
          EXPECT_EQ(algorithm.kind == Kind::gather, static_cast<bool>(algorithm.combine)) << yaml;
          EXPECT_FALSE(algorithm.combine && algorithm.summed) << yaml;
          EXPECT_FALSE(algorithm.second && algorithm.combine) << yaml;
          EXPECT_TRUE(algorithm.kind == Kind::none || algorithm.server_step) << yaml;
        } catch (Error const& error) {
          ++refused;
          std::string const text = error.what();
          EXPECT_NE(text.find(" ("), std::string::npos) << text;
          EXPECT_NE(text.find(')'), std::string::npos) << text;
          EXPECT_EQ(text.back(), '.') << text;
        }
      }
  EXPECT_GT(taken, 40);
  EXPECT_GT(refused, 40);
}

TEST(Tables, BadArgumentsAreRefused) {
  std::map<std::string, std::string> const bad{
      {"federate: {lora_aggregation: floras}", "flora"},
      {"federate: {lora_aggregation: fedsvd, lora_svd_every: 0}", "lora_svd_every"},
      {"federate: {lora_aggregation: flexlora, lora_energy: 1.5}", "lora_energy"},
      {"federate: {lora_aggregation: fedask, lora_oversampling: -1}", "lora_oversampling"},
      {"{federate: {lora_aggregation: frlora}, llm: {adapter: {init_from: there}}}", "init_from"},
      {"hpc: {clients_per_pass: 0}", "clients_per_pass"},
      {"{federate: {keep_optimizer: True}, hpc: {clients_per_pass: 2}}", "clients_per_pass"},
      {"fedprox: {use: True, mu: -1}", "fedprox.mu"},
      {"aggregator: {robust_rule: kru}", "krum"}};
  for (auto const& [yaml, word] : bad) EXPECT_ERROR(load(yaml), word);
}

}  // namespace
}  // namespace fsllm
