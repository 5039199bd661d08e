// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <fstream>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/sweep/runs.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using test::TempDir;

class Spec : public testing::Test {
 protected:
  Spec() { std::ofstream(dir_ / "base.yaml") << "seed: 7\nfederate: {total_round_num: 9}\n"; }
  SweepSpec load(std::string const& yaml) {
    std::ofstream(dir_ / "sweep.yaml") << yaml;
    return load_sweep(dir_ / "sweep.yaml");
  }
  std::string refused(std::string const& yaml) {
    try {
      load(yaml);
    } catch (Error const& error) {
      return error.what();
    }
    return "accepted";
  }
  std::vector<std::string> names(std::string const& yaml) {
    auto const spec = load(yaml);
    std::vector<std::string> found;
    for (auto const& run : runs_of(spec, settings_of(spec))) found.push_back(run.name);
    return found;
  }
  TempDir dir_;
  std::string const head_ = "base: base.yaml\noutdir: runs\n";
};

TEST_F(Spec, GridIsAProductWithSeedsInnermost) {
  auto const spec = load(
      head_ +
      "grid:\n  train.optimizer.lr: [0.02, 3e-1]\n  federate.method: [fedavg, fedprox]\nseeds: [1, 2]\n");
  EXPECT_EQ(spec.base_rounds, 9);
  auto const settings = settings_of(spec);
  auto const runs = runs_of(spec, settings);
  ASSERT_EQ(runs.size(), 8U);
  EXPECT_EQ(runs[0].name, "lr=0.02_method=fedavg_seed=1");
  EXPECT_EQ(runs[1].name, "lr=0.02_method=fedavg_seed=2");
  EXPECT_EQ(runs[2].name, "lr=0.02_method=fedprox_seed=1");
  EXPECT_EQ(runs[7].name, "lr=3e-1_method=fedprox_seed=2");
  EXPECT_EQ(keys_json(settings[2]).dump(), R"({"train.optimizer.lr":0.3,"federate.method":"fedavg"})");
}

TEST_F(Spec, NamedChoicesSetSeveralKeys) {
  auto const spec = load(head_ +
                         "grid:\n  federate.method: [fedavg, local]\n  adapter:\n"
                         "    LoRA: {llm.adapter.args: [{adapter_method: lora}], train.optimizer.lr: 0.001}\n"
                         "    prompt: {llm.adapter.args: [{adapter_method: prompt}]}\n");
  auto const settings = settings_of(spec);
  auto const runs = runs_of(spec, settings);
  ASSERT_EQ(runs.size(), 4U);
  EXPECT_EQ(runs[1].name, "method=fedavg_adapter=prompt_seed=7");
  auto const set = assignments(settings[2]);
  ASSERT_EQ(set.size(), 3U);
  EXPECT_EQ(set[0].first + "=" + set[0].second.text, "federate.method=local");
  EXPECT_EQ(set[1].first + "=" + set[1].second.text, R"(llm.adapter.args=[{"adapter_method":"lora"}])");
  EXPECT_EQ(set[2].first + "=" + set[2].second.text, "train.optimizer.lr=0.001");
  EXPECT_EQ(keys_json(settings[1]).dump(),
            R"({"federate.method":"fedavg","llm.adapter.args":[{"adapter_method":"prompt"}]})");
  EXPECT_EQ(choices_json(settings[1]).dump(), R"({"adapter":"prompt"})");
  EXPECT_EQ(keys_text(settings[1]), "federate.method = fedavg, adapter = prompt");
}

TEST_F(Spec, NamedChoicesAreHeldToTheirForm) {
  auto const grid = head_ + "grid:\n  ";
  EXPECT_THAT(refused(grid + "adapter: {LoRA: 3}\n"),
              testing::HasSubstr("is no map of keys. Write KEY: VALUE"));
  EXPECT_THAT(refused(grid + "adapter: {LoRA: {seed: 3}}\n"), testing::HasSubstr("seeds: [1, 2]"));
  EXPECT_THAT(refused(grid + "train.optimizer.lr: [1]\n  adapter: {LoRA: {train.optimizer.lr: 3}}\n"),
              testing::HasSubstr("sets train.optimizer.lr twice (in train.optimizer.lr and in adapter)"));
}

TEST_F(Spec, SeedsComeFromTheBaseWhereNoneAreGiven) {
  EXPECT_THAT(names(head_ + "grid: {train.optimizer.lr: [1]}\n"), testing::ElementsAre("lr=1_seed=7"));
}

TEST_F(Spec, ValuesKeepTheirKind) {
  auto const settings =
      settings_of(load(head_ + "grid: {a: [True, '1', 1, 1.0, text, [x, 2], {type: SGD, lr: 0.1}]}\n"));
  std::vector<std::string> texts, jsons;
  for (auto const& setting : settings) {
    texts.push_back(setting[0].second.text);
    jsons.push_back(setting[0].second.json.dump());
  }
  EXPECT_THAT(jsons, testing::ElementsAre("true", "\"1\"", "1", "1.0", "\"text\"", "[\"x\",2]",
                                          R"({"type":"SGD","lr":0.1})"));
  EXPECT_EQ(texts[5], R"(["x",2])");
  EXPECT_EQ(texts[0], "True");
}

TEST_F(Spec, NamesAreFoldersAndDiffer) {
  auto const found =
      names(head_ + "grid: {train.lr: [1], finetune.lr: [1], t: ['a/b', 'a b', '../..']}\nseeds: [3]\n");
  std::set<std::string> const all(found.begin(), found.end());
  EXPECT_EQ(all.size(), 3U);
  for (auto const& name : found) {
    EXPECT_THAT(name, testing::StartsWith("train.lr=1_finetune.lr=1_t="));
    EXPECT_EQ(name.find_first_of("/ "), std::string::npos);
  }
  auto const lengthy =
      names(head_ + "grid: {t: [" + std::string(300, 'x') + ", " + std::string(301, 'x') + "]}\n");
  EXPECT_NE(lengthy[0], lengthy[1]);
  EXPECT_LT(lengthy[0].size(), 160U);
}

TEST_F(Spec, MistakesAreNamedWithTheirPlace) {
  EXPECT_THAT(refused(head_ + "gird: {a: [1]}\n"),
              testing::HasSubstr("sweep.yaml:3: gird is no key of a sweep. Did you mean 'grid'?"));
  EXPECT_THAT(refused(head_ + "grid: {seed: [1, 2]}\n"), testing::HasSubstr("Write seeds: [1, 2]"));
  EXPECT_THAT(refused(head_ + "grid: {a: 1}\n"), testing::HasSubstr("sweep.yaml:3: grid.a is no list"));
  EXPECT_THAT(refused(head_ + "grid: {a: []}\n"), testing::HasSubstr("grid.a is no list with at least one"));
  EXPECT_THAT(refused(head_ + "grid: {a: [1, 1]}\n"), testing::HasSubstr("lists 1 twice"));
  EXPECT_THAT(refused(head_ + "grid: {a: [1], a: [2]}\n"), testing::HasSubstr("grid.a stands twice"));
  EXPECT_THAT(refused(head_ + "grid: {a: [1]}\nseeds: [1, x]\n"),
              testing::HasSubstr("seeds = x (a whole number"));
  EXPECT_THAT(refused(head_), testing::HasSubstr("varies nothing"));
  EXPECT_THAT(refused("outdir: runs\ngrid: {a: [1]}\n"), testing::HasSubstr("base is missing"));
  EXPECT_THAT(refused("base: base.yaml\ngrid: {a: [1]}\n"), testing::HasSubstr("outdir is missing"));
  EXPECT_THAT(refused("base: bsae.yaml\noutdir: runs\ngrid: {a: [1]}\n"),
              testing::HasSubstr("there is no such file"));
  EXPECT_THAT(refused("base: [\n"), testing::HasSubstr("is not valid YAML"));
  EXPECT_THAT(refused("[1, 2]\n"), testing::HasSubstr("is no map of keys"));
  EXPECT_THAT(refused(head_ + "grid: {a: [1]}\nmetrics: [{name: x, best: most}]\n"),
              testing::HasSubstr("min or max"));
  EXPECT_THAT(refused(head_ + "grid: {a: &x [*x]}\n"), testing::Not(testing::HasSubstr("accepted")));
  EXPECT_THAT(refused(head_ + "grid: {a: [1]}\nrandom: {count: 2, keys: {b: {uniform: [0, 1]}}}\n"),
              testing::HasSubstr("three ways to choose settings"));
  EXPECT_THAT(refused(head_ + "random: {count: 2, keys: {b: {log_uniform: [0, 1]}}}\n"),
              testing::HasSubstr("a logarithm needs more than 0"));
  EXPECT_THAT(refused(head_ + "random: {count: 2, keys: {b: {uniform: [2, 1]}}}\n"),
              testing::HasSubstr("the lower bound comes first"));
  EXPECT_THAT(refused(head_ + "random: {count: 2, keys: {b: {unifrom: [0, 1]}}}\n"),
              testing::HasSubstr("Did you mean 'uniform'?"));
  EXPECT_THAT(refused(head_ + "grid: {a: [1]}\nhalving: {budget_key: train.local_update_steps, max: 4}\n"),
              testing::HasSubstr("Write federate.total_round_num."));
}

TEST_F(Spec, SearchesOfFsLlmAreToldWhereTheyBelong) {
  std::ofstream(dir_ / "base.yaml") << "hpo: {scheduler: sha, ss: ss.yaml}\n";
  EXPECT_THAT(
      refused(head_ + "seeds: [1]\n"),
      testing::HasSubstr(
          "Write random: {count, keys} and halving: {min, max, eta} there, with the keys of ss.yaml"));
}

TEST_F(Spec, DrawnSettingsLieInTheirRangesAndComeAgain) {
  auto const yaml =
      head_ +
      "random: {count: 200, seed: 3, keys: {lr: {log_uniform: [0.001, 1]}, r: {uniform: [1, 4]}, m: "
      "{choice: [a, b]}}}\nseeds: [1]\n";
  auto const spec = load(yaml);
  auto const settings = settings_of(spec);
  ASSERT_EQ(settings.size(), 200U);
  int small = 0, a = 0;
  std::set<std::string> ranks;
  for (auto const& setting : settings) {
    auto const lr = setting[0].second.json.get<double>();
    EXPECT_GE(lr, 0.001);
    EXPECT_LE(lr, 1);
    small += lr < std::sqrt(0.001) ? 1 : 0;
    ranks.insert(setting[1].second.text);
    a += setting[2].second.text == "a" ? 1 : 0;
    auto const again = setting_at(spec, point_of(spec, setting));
    EXPECT_EQ(keys_json(again), keys_json(setting)) << "a setting's point leads back to it";
  }
  EXPECT_NEAR(small, 100, 40) << "half of the logarithms";
  EXPECT_NEAR(a, 100, 40);
  EXPECT_THAT(ranks, testing::ElementsAre("1", "2", "3", "4"));
  EXPECT_EQ(keys_json(settings_of(load(yaml))[17]), keys_json(settings[17]));
}

}  // namespace
}  // namespace fsllm
