// SPDX-License-Identifier: Apache-2.0
// YAML 1.1's merge key, anchors and aliases; expected values by PyYAML.
#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

Config parsed(std::string const& yaml) {
  return Config::parse(yaml, "run.yaml");
}

int64_t value(std::string const& yaml, std::string const& key) {
  return parsed(yaml).get<int64_t>(key, -1, "");
}

TEST(ConfigMerge, KeysOfTheMapWin) {
  EXPECT_EQ(value("eval: {<<: {freq: 2}}", "eval.freq"), 2);
  EXPECT_EQ(value("eval: {<<: {freq: 2}, freq: 3}", "eval.freq"), 3);
  EXPECT_EQ(value("eval: {freq: 3, <<: {freq: 2}}", "eval.freq"), 3);
  EXPECT_EQ(value("<<: {eval: {freq: 2}}", "eval.freq"), 2);
  EXPECT_EQ(value("a: &a {x: {y: 1, z: 1}}\nb: {<<: *a, x: {y: 2}}", "b.x.z"), -1) << "maps are not mixed";
  EXPECT_EQ(value("a: &a {x: {y: 1, z: 1}}\nb: {<<: *a, x: {y: 2}}", "b.x.y"), 2);
}

TEST(ConfigMerge, EarlierMapsWinOverLaterOnes) {
  std::string const maps = "a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: &c {<<: *b, z: 3}\n";
  EXPECT_EQ(value(maps + "d: {<<: [*a, *b]}", "d.x"), 1);
  EXPECT_EQ(value(maps + "d: {<<: [*a, *b]}", "d.y"), 2);
  EXPECT_EQ(value(maps + "d: {<<: [*b, *a]}", "d.x"), 2);
  EXPECT_EQ(value(maps + "d: {<<: *c}", "d.y"), 2);
  EXPECT_EQ(value(maps + "d: {<<: [*c, *a], y: 9}", "d.x"), 2);
  EXPECT_EQ(value(maps + "d: {<<: [*c, *a], y: 9}", "d.y"), 9);
}

TEST(ConfigMerge, InListsOfMapsAndWithLists) {
  std::string const yaml = "base: &l {adapter_method: lora, r: 4}\nargs:\n- {<<: *l}\n- {<<: *l, r: 8}\n";
  EXPECT_EQ(value(yaml, "args[0].r"), 4);
  EXPECT_EQ(value(yaml, "args[1].r"), 8);
  auto config = parsed("splits: &s [1, 0, 0]\ndata: {splits: *s}\n");
  EXPECT_EQ(config.get("data.splits", std::vector<double>{}, ""), (std::vector<double>{1, 0, 0}));
}

TEST(ConfigMerge, UnknownMergedKeysAreRefusedWhereTheyStand) {
  auto config = parsed("eval:\n  <<:\n    frek: 2\n");
  EXPECT_ERROR(config.finish(), "run.yaml:3: eval.frek");
}

TEST(ConfigMerge, WhatIsNoMap) {
  EXPECT_ERROR(parsed("eval:\n  <<: 3\n"), "run.yaml:2: << merges what is no map");
  EXPECT_ERROR(parsed("eval: {<<: [{a: 1}, 2]}"), "<< merges what is no map");
  EXPECT_ERROR(parsed("eval: {<<: {a: 1}, <<: {b: 1}}"), "eval.<< stands twice");
  EXPECT_ERROR(parsed("a: &a {<<: *a}"), "run.yaml");
  EXPECT_ERROR(parsed("eval: {'<<': {freq: 2}}").finish(), "eval.<<.freq");
}

TEST(ConfigMerge, MapsThatMultiplyAreBounded) {
  std::string yaml = "a0: &a0 {x: 1}\n";
  for (int i = 1; i < 20; ++i)
    yaml += fmt::format("a{0}: &a{0} {{<<: [*a{1}, *a{1}, *a{1}, *a{1}]}}\n", i, i - 1);
  EXPECT_ERROR(parsed(yaml), "<< merges too many maps");
}

}  // namespace
}  // namespace fsllm
