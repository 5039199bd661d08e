// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

Config parsed(std::string const& yaml) {
  return Config::parse(yaml, "run.yaml");
}

TEST(ConfigRead, ValuesOfEveryType) {
  auto config = parsed(R"(
use_gpu: True
seed: -7
train:
  optimizer: {type: AdamW, lr: 3e-4}
data:
  splits: [0.9, 0.1, 0]
  sizes: [1, 2]
  names: [a, "b c"]
)");
  EXPECT_TRUE(config.get("use_gpu", false, ""));
  EXPECT_EQ(config.get<int64_t>("seed", 0, ""), -7);
  EXPECT_EQ(config.get("train.optimizer.type", "SGD", ""), "AdamW");
  EXPECT_EQ(config.get("train.optimizer.lr", 0.1, ""), 3e-4);
  EXPECT_EQ(config.get("data.splits", std::vector<double>{}, ""), (std::vector<double>{0.9, 0.1, 0}));
  EXPECT_EQ(config.get("data.sizes", std::vector<int64_t>{}, ""), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(config.get("data.names", std::vector<std::string>{}, ""), (std::vector<std::string>{"a", "b c"}));
  EXPECT_NO_THROW(config.finish());
}

TEST(ConfigRead, ACopyIsAValueOfItsOwn) {
  auto const original = Config::parse("a: 1\n", "run.yaml");
  Config copy = original;
  copy.set("a", "2");
  EXPECT_EQ(copy.get("a", int64_t{0}, "doc"), 2);
  EXPECT_TRUE(original.keys().empty());
  EXPECT_EQ(original.text("a"), "1");
}

TEST(ConfigRead, WhatIsNotGivenIsTheDefault) {
  for (auto const* yaml : {"", "# only a comment\n", "{}", "lr:\nseed: ~\n"}) {
    auto config = parsed(yaml);
    EXPECT_EQ(config.get("lr", 0.25, ""), 0.25) << yaml;
    EXPECT_EQ(config.get<int64_t>("seed", 3, ""), 3) << yaml;
    EXPECT_NO_THROW(config.finish()) << yaml;
  }
}

TEST(ConfigRead, SpellingsOfYaml11) {
  auto config = parsed("a: yes\nb: OFF\nc: 'true text'\nd: +5\ne: .5\nf: 1e3\ng: \"12\"\n");
  EXPECT_TRUE(config.get("a", false, ""));
  EXPECT_FALSE(config.get("b", true, ""));
  EXPECT_EQ(config.get("c", "", ""), "true text");
  EXPECT_EQ(config.get<int64_t>("d", 0, ""), 5);
  EXPECT_EQ(config.get("e", 0.0, ""), 0.5);
  EXPECT_EQ(config.get("f", 0.0, ""), 1000);
  EXPECT_EQ(config.get("g", "", ""), "12");
}

TEST(ConfigRead, WrongTypesNameFileAndLine) {
  auto config = parsed("train:\n  lr: fast\n  steps: 1.5\n  shuffle: maybe\n  sizes: 3\n  name: [a]\n");
  EXPECT_ERROR(config.get("train.lr", 0.1, ""), "run.yaml:2: train.lr = 'fast' (a number is needed)");
  EXPECT_ERROR(config.get<int64_t>("train.steps", 1, ""),
               "run.yaml:3: train.steps = '1.5' (a whole number is needed)");
  EXPECT_ERROR(config.get("train.shuffle", true, ""),
               "run.yaml:4: train.shuffle = 'maybe' (must be True or False)");
  EXPECT_ERROR(config.get("train.sizes", std::vector<int64_t>{}, ""),
               "run.yaml:5: train.sizes = '3' (a list is needed");
  EXPECT_ERROR(config.get("train.name", "", ""), "run.yaml:6: train.name is a list (string is needed)");
}

TEST(ConfigRead, NumbersThatDoNotFitAreErrors) {
  auto config = parsed("a: 99999999999999999999\nb: .inf\nc: nan\nd: 1e999\ne: 0x10\nf: ''\ng: 5 apples\n");
  EXPECT_ERROR(config.get<int64_t>("a", 0, ""), "does not fit into 64 bits");
  for (auto const* key : {"e", "f", "g"})
    EXPECT_ERROR(config.get<int64_t>(key, 0, ""), "a whole number is needed");
  for (auto const* key : {"b", "c", "d", "f", "g"})
    EXPECT_ERROR(config.get(key, 0.0, ""), "a number is needed");
}

TEST(ConfigRead, AnEntryOfAListIsChecked) {
  auto config = parsed("splits: [0.9, much]\n");
  EXPECT_ERROR(config.get("splits", std::vector<double>{}, ""),
               "run.yaml:1: splits = 'much' (a number is needed)");
}

TEST(ConfigRead, RangesAtTheirEdges) {
  auto const get = [](char const* value, Constraint const& constraint) {
    return parsed(std::string("x: ") + value).get("x", 0.5, "", constraint);
  };
  EXPECT_EQ(get("1", at_least(1)), 1);
  EXPECT_ERROR(get("0.999", at_least(1)), "run.yaml:1: x = 0.999 (must be at least 1)");
  EXPECT_EQ(get("1e-9", more_than(0)), 1e-9);
  EXPECT_ERROR(get("0", more_than(0)), "must be more than 0");
  EXPECT_EQ(get("0", within(0, 1)), 0);
  EXPECT_EQ(get("1", within(0, 1)), 1);
  EXPECT_ERROR(get("1.1", within(0, 1)), "must be in [0, 1]");
  EXPECT_EQ(get("0", within_open(0, 1)), 0);
  EXPECT_ERROR(get("1", within_open(0, 1)), "must be in [0, 1)");
}

TEST(ConfigRead, RangeOfListEntriesAndIntegers) {
  auto config = parsed("splits: [0.5, -0.5]\nclients: 0\n");
  EXPECT_ERROR(config.get("splits", std::vector<double>{}, "", within(0, 1)),
               "splits = -0.5 (must be in [0, 1])");
  EXPECT_ERROR(config.get<int64_t>("clients", 1, "", at_least(1)),
               "run.yaml:2: clients = 0 (must be at least 1)");
}

TEST(ConfigRead, ChoicesWithTheNearestOne) {
  auto config = parsed("type: AdmW\nother: lion\nlist: [fp32, fp61]\nright: SGD\n");
  auto const optimizers = one_of({"SGD", "Adam", "AdamW"});
  EXPECT_ERROR(config.get("type", "SGD", "", optimizers), "run.yaml:1: type = 'AdmW'");
  EXPECT_ERROR(config.get("type", "SGD", "", optimizers), "Did you mean 'Adam");
  EXPECT_ERROR(config.get("other", "SGD", "", optimizers), "must be one of SGD, Adam, AdamW");
  EXPECT_ERROR(config.get("list", std::vector<std::string>{}, "", one_of({"fp32", "fp16"})), "'fp61'");
  EXPECT_EQ(config.get("right", "Adam", "", optimizers), "SGD");
}

TEST(ConfigRead, MapsOfNumbers) {
  auto config = parsed(
      "ranks: {v_proj: 4, 'layers.0.q_proj': 8, 'h.[01].c': 2}\nbad: {a: many}\nflat: 3\nlist: [{a: 1}]\n");
  std::vector<std::pair<std::string, double>> const expected = {
      {"v_proj", 4}, {"layers.0.q_proj", 8}, {"h.[01].c", 2}};
  EXPECT_EQ(config.numbers("ranks", ""), expected);
  EXPECT_ERROR(config.numbers("ranks", "", at_least(3)),
               "run.yaml:1: ranks.h.[01].c = 2 (must be at least 3)");
  EXPECT_TRUE(config.numbers("none", "").empty());
  EXPECT_ERROR(config.numbers("bad", ""), "run.yaml:2: bad.a = 'many' (a number is needed)");
  EXPECT_ERROR(config.numbers("flat", ""), "run.yaml:3: flat is not a map (names with numbers are needed");
  EXPECT_ERROR(config.numbers("list", ""), "list is not a map");
  auto good = parsed("ranks: {v_proj: 4, 'layers.0.q_proj': 8, 'h.[01].c': 2}\n");
  good.numbers("ranks", "");
  EXPECT_NO_THROW(good.finish());
  EXPECT_EQ(Config::parse(good.dump(), "again").numbers("ranks", ""), expected);
}

TEST(ConfigRead, UnknownKeysAreRefusedWithTheNearestKnown) {
  auto config = parsed("federate:\n  client_num: 3\n  sample_client_nun: 2\n");
  config.get<int64_t>("federate.client_num", 1, "");
  config.get<int64_t>("federate.sample_client_num", 1, "");
  EXPECT_ERROR(config.finish(),
               "run.yaml:3: federate.sample_client_nun (unknown key). "
               "Did you mean 'federate.sample_client_num'?");
}

TEST(ConfigRead, UnknownKeysThatResembleNothing) {
  auto config = parsed("zebra: 1\n");
  config.get("lr", 0.1, "");
  EXPECT_ERROR(config.finish(), "run.yaml:1: zebra (unknown key). See --describe");
}

TEST(ConfigRead, ASectionIsNotAValue) {
  auto config = parsed("train: 5\n");
  config.get("train.lr", 0.1, "");
  EXPECT_ERROR(config.finish(), "run.yaml:1: train is given as a value");
  auto other = parsed("lr: {start: 1}\n");
  EXPECT_ERROR(other.get("lr", 0.1, ""), "run.yaml:1: lr.start");
}

TEST(ConfigRead, AnEmptySectionIsNothing) {
  auto config = parsed("train:\neval: {}\nlist: []\n");
  config.get("train.lr", 0.1, "");
  config.get("eval.freq", 0.1, "");
  EXPECT_EQ(config.list_size("list"), 0);
  config.get("list[0].r", 0.1, "");
  EXPECT_NO_THROW(config.finish());
}

TEST(ConfigRead, AcceptedSectionsAreNotRead) {
  auto config = parsed("distribute:\n  role: server\n  ports: [1, 2]\n  deep: {a: {b: 1}}\ndistributed: 1\n");
  config.accept_all_under("distribute");
  EXPECT_ERROR(config.finish(), "run.yaml:5: distributed (unknown key)");
}

TEST(ConfigRead, ListsOfMaps) {
  auto config = parsed(R"(
llm:
  adapter:
    args:
      - {adapter_package: peft, r: 8}
      - {r: 16, target: [q_proj, v_proj]}
)");
  EXPECT_EQ(config.list_size("llm.adapter.args"), 2);
  EXPECT_EQ(config.list_size("llm.adapter.none"), 0);
  EXPECT_EQ(config.get("llm.adapter.args[0].adapter_package", "", ""), "peft");
  EXPECT_EQ(config.get<int64_t>("llm.adapter.args[0].r", 1, ""), 8);
  EXPECT_EQ(config.get<int64_t>("llm.adapter.args[1].r", 1, ""), 16);
  EXPECT_ERROR(config.finish(), "llm.adapter.args[1].target (unknown key)");
}

TEST(ConfigRead, QuestionsAboutWhatIsGiven) {
  auto config = parsed("b: 1\na: {y: 1, x: {z: 2}}\nempty: {}\nlist: [{q: 1}]\n");
  EXPECT_TRUE(config.has("b"));
  EXPECT_TRUE(config.has("a"));
  EXPECT_TRUE(config.has("a.x"));
  EXPECT_TRUE(config.has("list"));
  EXPECT_FALSE(config.has("a.q"));
  EXPECT_FALSE(config.has("x"));
  EXPECT_EQ(config.children("a"), (std::vector<std::string>{"y", "x"}));
  EXPECT_EQ(config.children(""), (std::vector<std::string>{"b", "a", "list"}));
  EXPECT_EQ(config.where("a.x.z"), "run.yaml:2: a.x.z");
  EXPECT_EQ(config.where("nowhere"), "nowhere");
}

TEST(ConfigRead, BrokenDocuments) {
  EXPECT_ERROR(parsed("a: 1\na: 2\n"), "run.yaml:2: a stands twice");
  EXPECT_ERROR(parsed("train: {lr: 1}\ntrain: {steps: 2}\n"), "train stands twice");
  EXPECT_ERROR(parsed("train:\n  lr: 1\n  lr: 1\n"), "run.yaml:3: train.lr stands twice");
  EXPECT_ERROR(parsed("train:\n\tlr: 1\n"), "run.yaml:2");
  EXPECT_ERROR(parsed("a: [1, 2\n"), "is not valid YAML");
  EXPECT_ERROR(parsed("a: *nowhere\n"), "is not valid YAML");
  EXPECT_ERROR(parsed("- 1\n- 2\n"), "run.yaml:1 is a list (a configuration is a map of keys)");
  EXPECT_ERROR(parsed("just text\n"), "run.yaml is not a map of keys");
  EXPECT_ERROR(parsed("a: [[1], [2]]\n"), "run.yaml:1: a holds lists or maps inside a list");
  EXPECT_ERROR(parsed("a: [1, {b: 2}]\n"), "a holds lists or maps inside a list");
  EXPECT_ERROR(parsed("a: [{b: 2}, 1]\n"), "a[1] is not a map");
  EXPECT_ERROR(parsed("[a, b]: 1\n"), "has a key that is not plain text");
  EXPECT_ERROR(parsed("a: 1\n---\nb: 2\n"), "run.yaml:2");
}

TEST(ConfigRead, DocumentsMadeToHurt) {
  std::string deep = "a: ";
  for (int i = 0; i < 5000; ++i) deep += "{a: ";
  EXPECT_THROW(parsed(deep), Error);
  EXPECT_THROW(parsed("a: " + std::string(5000, '[')), Error);
  EXPECT_THROW(parsed("a: &x {b: *x}\n"), Error);
  std::string bomb = "l0: &l0 {a: 1, b: 2, c: 3, d: 4, e: 5, f: 6, g: 7, h: 8}\n";
  for (int i = 1; i < 12; ++i) {
    auto const before = "*l" + std::to_string(i - 1);
    bomb += "l" + std::to_string(i) + ": &l" + std::to_string(i) + " {";
    for (char key = 'a'; key < 'i'; ++key) bomb += std::string(1, key) + ": " + before + ", ";
    bomb += "}\n";
  }
  EXPECT_THROW(parsed(bomb), Error);
}

TEST(ConfigRead, OneErrorTellsAllMistakes) {
  auto config = parsed("a: x\nb: 0\nc: {d: 1}\nn: 3\nunknwon: 1\n");
  bool reached = false;
  config.part([&] {
    EXPECT_EQ(config.get<int64_t>("a", 7, ""), 7);
    config.get("b", 1.0, "", more_than(0));
    fail("what follows from a mistake");
  });
  config.part([&] {
    config.get("c.d", int64_t{0}, "");
    fail("another mistake");
  });
  config.part([&] { reached = config.get<int64_t>("n", 0, "") == 3; });
  EXPECT_TRUE(reached);
  EXPECT_TRUE(config.was_cut_short());
  try {
    config.finish();
    FAIL();
  } catch (Error const& error) {
    std::string const text = error.what();
    EXPECT_TRUE(text.starts_with("4 mistakes in the configuration. Correct them.\n  run.yaml:1: a = 'x'"))
        << text;
    for (auto const* part :
         {"run.yaml:2: b = 0 (must be more than 0)", "another mistake", "run.yaml:5: unknwon"})
      EXPECT_NE(text.find(part), std::string::npos) << text;
    EXPECT_EQ(text.find("what follows"), std::string::npos) << text;
  }
}

TEST(ConfigRead, OneMistakeIsToldAlone) {
  auto config = parsed("a: x\n");
  config.part([&] { config.get<int64_t>("a", 7, ""); });
  EXPECT_ERROR(config.report(), "run.yaml:1: a = 'x' (a whole number is needed). Change it.");
}

TEST(ConfigRead, WhatNothingReadsIsNotShown) {
  auto config = parsed("a: {b: 1}\n");
  for (auto const* key : {"a.b", "a.c", "d"}) config.get<int64_t>(key, 0, "");
  config.leave_out("a");
  EXPECT_EQ(config.dump(), "a:\n  b: 1\nd: 0\n");
}

TEST(ConfigRead, OtherReadersOfYamlSeeTheSameTypes) {
  auto config = parsed(
      "x: {s: \"yes\", t: \"012\", u: plain/text-1.gguf, v: \"a: b\", l: [\"on\", b], m: [{r: 1}, {r: 2}]}");
  config.get("eps", 1e-8, "");
  config.get("big", 1e20, "");
  for (auto const* key : {"x.s", "x.t", "x.u", "x.v"}) config.get(key, "", "");
  config.get("x.l", std::vector<std::string>{}, "");
  config.get<int64_t>("x.m[0].r", 0, "");
  config.get<int64_t>("x.m[1].r", 0, "");
  config.get("x.on", false, "");
  config.get("x.none", "", "");
  EXPECT_EQ(
      config.dump(),
      "eps: 1.0e-08\nbig: 1.0e+20\nx:\n  s: \"yes\"\n  t: \"012\"\n  u: plain/text-1.gguf\n  v: \"a: b\"\n"
      "  l: [\"on\", b]\n  m:\n    - r: 1\n    - r: 2\n  \"on\": false\n  none: \"\"\n");
}

}  // namespace
}  // namespace fsllm
