// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

Config parsed(std::string const& yaml) {
  return Config::parse(yaml, "run.yaml");
}

TEST(ConfigOverride, TheCommandLineWins) {
  auto config = parsed("train: {lr: 0.1, steps: 5}\n");
  config.set("train.lr", "0.5");
  config.set("train.shuffle", "True");
  config.set("splits", "[0.9, 0.1]");
  EXPECT_EQ(config.get("train.lr", 0.0, ""), 0.5);
  EXPECT_EQ(config.get<int64_t>("train.steps", 0, ""), 5);
  EXPECT_TRUE(config.get("train.shuffle", false, ""));
  EXPECT_EQ(config.get("splits", std::vector<double>{}, ""), (std::vector<double>{0.9, 0.1}));
  EXPECT_NO_THROW(config.finish());
}

TEST(ConfigOverride, AMapReplacesASection) {
  auto config = parsed("optimizer: {type: AdamW, weight_decay: 0.1}\n");
  config.set("optimizer", "{type: SGD}");
  EXPECT_EQ(config.get("optimizer.type", "", ""), "SGD");
  EXPECT_EQ(config.get("optimizer.weight_decay", 0.0, ""), 0.0);
}

TEST(ConfigOverride, AListOfMapsReplacesAListOfMaps) {
  auto config = parsed("args: [{r: 1}, {r: 2}]\n");
  config.set("args", "[{r: 3}]");
  EXPECT_EQ(config.list_size("args"), 1);
  EXPECT_EQ(config.get<int64_t>("args[0].r", 0, ""), 3);
  EXPECT_NO_THROW(config.finish());
}

TEST(ConfigOverride, OneEntryOfAListOfMaps) {
  auto config = parsed("args: [{r: 1}, {r: 2}]\n");
  config.set("args[1].r", "7");
  EXPECT_EQ(config.get<int64_t>("args[0].r", 0, ""), 1);
  EXPECT_EQ(config.get<int64_t>("args[1].r", 0, ""), 7);
  EXPECT_EQ(config.list_size("args"), 2);
}

TEST(ConfigOverride, TheLastOneWinsAndNullIsTheDefault) {
  auto config = parsed("lr: 1\n");
  config.set("lr", "2");
  config.set("lr", "3");
  EXPECT_EQ(config.get("lr", 0.0, ""), 3);
  auto other = parsed("lr: 1\n");
  other.set("lr", "");
  EXPECT_EQ(other.get("lr", 0.25, ""), 0.25);
}

TEST(ConfigOverride, ErrorsSayWhereTheValueCameFrom) {
  auto config = parsed("lr: 1\n");
  config.set("lr", "fast");
  config.set("zebra", "1");
  EXPECT_ERROR(config.get("lr", 0.0, ""), "command line: lr = 'fast' (a number is needed)");
  auto other = parsed("");
  other.set("zebra", "1");
  EXPECT_ERROR(other.finish(), "command line: zebra (unknown key)");
  EXPECT_ERROR(other.set("", "1"), "command line");
  auto broken = parsed("");
  broken.set("a", "[1, 2");
  EXPECT_ERROR(broken.get("a", std::vector<int64_t>{}, ""), "command line:1 is not valid YAML");
  auto section = parsed("");
  section.set("section", "{lr: 1, lr: 2}");
  section.get("section.lr", 0.0, "");
  EXPECT_ERROR(section.finish(), "command line: section.lr stands twice");
}

TEST(ConfigOverride, AStringIsWhatWasTyped) {
  for (auto const* text : {"*.jsonl",
                           "run #2",
                           "%j",
                           "### Q: {instruction}",
                           "{instruction}",
                           "[draft",
                           "[a, b]",
                           "[{a: 1}]",
                           "'quoted'",
                           "a: b",
                           "- x",
                           "&anchor",
                           "!tag",
                           "@x",
                           "`x`",
                           "~",
                           "null",
                           "",
                           "True",
                           "012",
                           " blanks ",
                           "line\nbreak",
                           "---",
                           "{a: 1, a: 2}",
                           "a\\nb"}) {
    auto config = parsed("");
    config.set("name", text);
    config.set("name", text);
    EXPECT_EQ(config.get("name", "default", ""), text);
    EXPECT_NO_THROW(config.finish());
    auto again = parsed(config.dump());
    EXPECT_EQ(again.get("name", "default", ""), text);
    auto copy = config.overridden_by(parsed(""));
    EXPECT_EQ(copy.get("name", "default", ""), text);
  }
}

TEST(ConfigOverride, ScalarsTakeBlanksButNoYaml) {
  auto config = parsed("");
  config.set("n", " 3 ");
  EXPECT_EQ(config.get<int64_t>("n", 0, ""), 3);
  config.set("m", "3 # three");
  EXPECT_ERROR(config.get<int64_t>("m", 0, ""), "command line: m = '3 # three' (a whole number is needed)");
  config.set("b", "[True]");
  EXPECT_ERROR(config.get("b", false, ""), "command line: b is a list");
}

TEST(ConfigOverride, ClientsOverrideSingleKeys) {
  auto const base = parsed("train: {lr: 0.1, steps: 5}\n");
  auto const clients =
      Config::parse("client_1: {train: {lr: 0.2}}\nclient_10: {train: {lr: 0.3}}\n", "clients.yaml");
  EXPECT_EQ(clients.children(""), (std::vector<std::string>{"client_1", "client_10"}));
  auto one = base.overridden_by(clients.below("client_1"));
  EXPECT_EQ(one.get("train.lr", 0.0, ""), 0.2);
  EXPECT_EQ(one.get<int64_t>("train.steps", 0, ""), 5);
  EXPECT_NO_THROW(one.finish());
  EXPECT_EQ(one.where("train.lr"), "clients.yaml:1: train.lr");
  auto none = base.overridden_by(clients.below("client_2"));
  EXPECT_EQ(none.get("train.lr", 0.0, ""), 0.1);
}

TEST(ConfigOverride, TheBaseStaysAsItWas) {
  auto base = parsed("lr: 0.1\n");
  auto changed = base.overridden_by(parsed("lr: 0.2\nextra: 1\n"));
  EXPECT_EQ(base.get("lr", 0.0, ""), 0.1);
  EXPECT_NO_THROW(base.finish());
  EXPECT_EQ(changed.get("lr", 0.0, ""), 0.2);
  EXPECT_ERROR(changed.finish(), "extra (unknown key)");
}

TEST(ConfigOverride, AShorterListOfMapsLeavesNothingBehind) {
  auto merged = parsed("args: [{r: 1}, {r: 2}]\n").overridden_by(parsed("args: [{r: 9}]\n"));
  EXPECT_EQ(merged.list_size("args"), 1);
  EXPECT_EQ(merged.get<int64_t>("args[0].r", 0, ""), 9);
  EXPECT_NO_THROW(merged.finish());
}

TEST(ConfigOverride, AnEmptyListRemovesAListOfMaps) {
  auto merged = parsed("args: [{r: 1}]\n").overridden_by(parsed("args: []\n"));
  EXPECT_EQ(merged.list_size("args"), 0);
  EXPECT_EQ(merged.get<int64_t>("args[0].r", 5, ""), 5);
  EXPECT_NO_THROW(merged.finish());
}

TEST(ConfigOverride, BelowKeepsListsOfMaps) {
  auto part = parsed("client_3:\n  args: [{r: 4}, {r: 5}]\n").below("client_3");
  EXPECT_EQ(part.list_size("args"), 2);
  EXPECT_EQ(part.get<int64_t>("args[1].r", 0, ""), 5);
}

}  // namespace
}  // namespace fsllm
