// SPDX-License-Identifier: Apache-2.0
// Several ranks train a client (hpc.ranks_per_client, hpc.zero_stage), through the program.
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <fmt/core.h>

#include "fsllm/io/safetensors.hpp"
#include "preference.hpp"

namespace fsllm::test {
namespace {

using Words = std::vector<std::string>;

class Groups : public testing::Test {
 protected:
  Outcome train(std::string const& name, int np, Words const& more) {
    SmallRun small;
    small.splits = "[0.8, 0.2, 0.0]";
    small.optimizer = "{type: AdamW, lr: 0.003, eps: 0.001}";
    small.batch = 3;
    small.rounds = 2;
    Words words{"fsllm_hpc",
                "--cfg",
                write_config(dir_.path(), small.yaml(dir_.path())).string(),
                "expname",
                name,
                "eval.split",
                "[val]",
                "grad.grad_clip",
                "1.0"};
    words.insert(words.end(), more.begin(), more.end());
    return run(dir_.path(), np, words);
  }
  void expect_trained(std::string const& name, int np, Words const& more) {
    auto const outcome = train(name, np, more);
    ASSERT_EQ(outcome.exit_code, 0) << name << outcome.err << outcome.out;
  }
  static Words in_groups(int ranks, int stage, Words more) {
    more.insert(more.end(),
                {"hpc.ranks_per_client", std::to_string(ranks), "hpc.zero_stage", std::to_string(stage)});
    return more;
  }
  TensorMap result(std::string const& name) {
    bool const full = std::filesystem::exists(dir_ / name / "model");
    return SafetensorsReader(dir_ / name / (full ? "model" : "adapter"), full ? "model" : "adapter_model")
        .tensors();
  }
  std::string bytes_of(std::string const& name) {
    bool const full = std::filesystem::exists(dir_ / name / "model");
    return read_text(dir_ / name / (full ? "model/model.safetensors" : "adapter/adapter_model.safetensors"));
  }
  void expect_near(std::string const& a, std::string const& b, double tolerance) {
    auto const expected = result(a), got = result(b);
    ASSERT_EQ(expected.size(), got.size()) << b;
    for (auto const& [name, tensor] : got)
      EXPECT_TRUE(tensors_near(tensor, expected.at(name), tolerance)) << a << " " << b << " " << name;
    auto const one = read_events(dir_ / a / "metrics.jsonl"), other = read_events(dir_ / b / "metrics.jsonl");
    ASSERT_EQ(one.size(), other.size());
    for (size_t i = 0; i < one.size(); ++i) {
      auto const loss = one[i].at("val").at("loss_per_token").get<double>();
      EXPECT_NEAR(other[i].at("val").at("loss_per_token").get<double>(), loss, 1e-5 * loss) << b;
      if (!one[i].contains("train")) continue;
      EXPECT_EQ(one[i].at("train").at("tokens"), other[i].at("train").at("tokens"));
      auto const norm = one[i].at("train").at("quantiles").at("update_norm");
      for (auto const& [quantile, value] : norm.items())
        EXPECT_NEAR(other[i].at("train").at("quantiles").at("update_norm").at(quantile).get<double>(),
                    value.get<double>(), 1e-4 * value.get<double>())
            << b;
    }
  }
  TempDir dir_;
};

Words const kFull{"llm.adapter.use", "False"};

TEST_F(Groups, EveryStageFederatesAsSingleRanksDo) {
  for (auto const& [kind, more] : std::map<std::string, Words>{
           {"full", kFull},
           {"lora", {"llm.adapter.args[0].lora_dropout", "0.1"}},
           {"fedopt",
            {"llm.adapter.use", "False", "fedopt.use", "True", "fedopt.optimizer",
             "{type: FedAdam, lr: 0.001}"}},
           {"median", {"llm.adapter.use", "False", "aggregator.robust_rule", "median"}}}) {
    expect_trained(kind, 2, more);
    for (int stage = 0; stage <= 3; ++stage) {
      auto const name = fmt::format("{}_{}", kind, stage);
      expect_trained(name, 4, in_groups(2, stage, more));
      // FedAdam's first steps go by the signs of what clients learn.
      expect_near(kind, name, kind == "fedopt" ? 1e-4 : 1e-5);
    }
  }
}

/// federate.method local: a group's clients never meet those of another, and each has a state of its own.
TEST_F(Groups, ClientsAloneLearnWhatSingleRanksTeach) {
  auto const clients_of = [&](std::string const& run, bool full) {
    std::map<std::string, TensorMap> clients;
    for (auto const& entry : std::filesystem::directory_iterator(dir_ / run / (full ? "model" : "adapter")))
      clients[entry.path().filename()] =
          SafetensorsReader(entry.path(), full ? "model" : "adapter_model").tensors();
    return clients;
  };
  for (bool const full : {true, false}) {
    Words const local{"federate.method", "local", "llm.adapter.use", full ? "False" : "True"};
    std::string const kind = full ? "full" : "lora";
    expect_trained(kind, 2, local);
    auto const expected = clients_of(kind, full);
    ASSERT_EQ(expected.size(), 3U);
    EXPECT_FALSE(tensors_near(expected.begin()->second.begin()->second,
                              expected.rbegin()->second.begin()->second, 1e-5))
        << "clients learn different things";
    for (auto const& [np, stage] : {std::pair{2, 2}, std::pair{4, 2}, std::pair{2, 3}, std::pair{4, 3}}) {
      auto const name = fmt::format("{}_{}_{}", kind, np, stage);
      expect_trained(name, np, in_groups(2, stage, local));
      auto const got = clients_of(name, full);
      ASSERT_EQ(got.size(), expected.size());
      for (auto const& [client, tensors] : expected)
        for (auto const& [tensor, values] : tensors)
          EXPECT_TRUE(tensors_near(got.at(client).at(tensor), values, 1e-5)) << name << client << tensor;
    }
    for (auto const& [client, tensors] : clients_of(kind + "_2_2", full))
      for (auto const& [tensor, values] : tensors)
        EXPECT_TRUE(at::equal(values, clients_of(kind + "_4_2", full).at(client).at(tensor)))
            << "the number of groups";
    // Its clients' states go on too.
    auto longer = in_groups(2, 3, local);
    longer.insert(longer.end(), {"federate.total_round_num", "4"});
    expect_trained(kind + "_long", 4, longer);
    longer.emplace_back("--resume");
    expect_trained(kind + "_4_3", 4, longer);
    for (auto const& [client, tensors] : clients_of(kind + "_long", full))
      for (auto const& [tensor, values] : tensors)
        EXPECT_TRUE(at::equal(values, clients_of(kind + "_4_3", full).at(client).at(tensor)))
            << client << tensor;
  }
}

/// Also where the reference is a model of which a rank has parts.
TEST_F(Groups, LearnFromPairs) {
  auto const pairs = on_pairs(
      {"train.loss", "dpo", "data.splits", "[0.7, 0.3, 0.0]", "llm.adapter.args[0].lora_dropout", "0.1"});
  expect_trained("pairs", 2, pairs);
  auto const val = [&](std::string const& name, size_t event) {
    return event_of(dir_ / name, event).at("val").at("loss_per_pair").get<double>();
  };
  EXPECT_NE(val("pairs", 2), val("pairs", 0));
  for (auto const& [np, stage] : {std::pair{2, 0}, std::pair{4, 2}, std::pair{2, 3}, std::pair{4, 3}}) {
    auto const name = fmt::format("pairs_{}_{}", np, stage);
    expect_trained(name, np, in_groups(2, stage, pairs));
    auto const expected = result("pairs"), got = result(name);
    ASSERT_EQ(got.size(), expected.size());
    for (auto const& [tensor, values] : expected)
      EXPECT_TRUE(tensors_near(got.at(tensor), values, 1e-5)) << name << tensor;
    EXPECT_NEAR(val(name, 2), val("pairs", 2), 1e-6) << name;
  }
}

TEST_F(Groups, TheNumberOfGroupsDoesNotMatter) {
  for (auto const& [kind, more] :
       std::map<std::string, Words>{{"full", kFull},
                                    {"kept", {"llm.adapter.use", "False", "federate.keep_optimizer", "True"}},
                                    {"exact", {"llm.adapter.use", "False", "hpc.reduce", "exact"}},
                                    {"lora", {}}}) {
    for (int np : {2, 4, 6}) expect_trained(fmt::format("{}_{}", kind, np), np, in_groups(2, 3, more));
    for (int np : {4, 6})
      if (kind != "full" && kind != "kept")
        EXPECT_EQ(bytes_of(kind + "_2"), bytes_of(fmt::format("{}_{}", kind, np))) << kind << np;
      else
        expect_near(kind + "_2", fmt::format("{}_{}", kind, np), 1e-6);
  }
}

TEST_F(Groups, RunsGoOnAtThisAndAnotherSize) {
  auto const longer = [](Words more) {
    more.insert(more.end(), {"federate.total_round_num", "4"});
    return more;
  };
  for (auto const& [kind, more] : std::map<std::string, Words>{
           {"full",
            {"llm.adapter.use", "False", "hpc.reduce", "exact", "fedopt.use", "True", "fedopt.optimizer",
             "{type: SGD, lr: 0.7, momentum: 0.5}"}},
           {"kept", {"llm.adapter.use", "False", "hpc.reduce", "exact", "federate.keep_optimizer", "True"}},
           {"lora", {}}}) {
    expect_trained(kind, 4, longer(in_groups(2, 3, more)));
    auto const from = kind + "_half";
    for (auto const& [np, ranks, stage] : {std::tuple{2, 2, 3}, std::tuple{6, 3, 2}, std::tuple{2, 1, 0}}) {
      expect_trained(from, 4, in_groups(2, 3, more));
      auto words = longer(in_groups(ranks, stage, more));
      words.emplace_back("--resume");
      auto const outcome = train(from, np, words);
      if (kind == "kept" && ranks != 2) {
        EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
        EXPECT_THAT(outcome.err, testing::HasSubstr("clients have states of their own"));
      } else {
        ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
        if (ranks == 2)
          EXPECT_EQ(bytes_of(kind), bytes_of(from)) << kind;
        else
          expect_near(kind, from, 1e-6);
      }
      std::filesystem::remove_all(dir_ / from);
    }
  }
}

TEST_F(Groups, WhatCannotBeIsRefused) {
  auto const expect_refused = [&](int np, Words const& more, std::string const& message) {
    auto const outcome = train("refused", np, more);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.out << outcome.err;
    EXPECT_THAT(outcome.err, testing::HasSubstr(message));
  };
  expect_refused(3, in_groups(2, 1, kFull), "hpc.ranks_per_client = 2 (3 ranks were started");
  expect_refused(2, in_groups(2, 1, {"llm.adapter.use", "False", "aggregator.robust_rule", "krum"}),
                 "whole updates");
  expect_refused(2, in_groups(2, 0, {"hpc.clients_per_pass", "2"}), "clients share passes");
  expect_refused(2, in_groups(2, 3, {"train.storage_dtype", "int8"}), "not partitioned");
  expect_refused(2, in_groups(2, 0, {"hpc.offload", "optimizer"}), "nothing is partitioned");
  expect_refused(2, in_groups(2, 4, kFull), "hpc.zero_stage = 4");
}

}  // namespace
}  // namespace fsllm::test
