// SPDX-License-Identifier: Apache-2.0
// What a Config prints: the resolved dump, --describe and --print-schema.
#include <nlohmann/json.hpp>
#include <set>
#include <tuple>

#include "fsllm/core/config.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// Reads every kind of key; the same keys each time it is called.
struct Values {
  explicit Values(Config config)
      : lr(config.get("train.optimizer.lr", 0.1, "learning rate", more_than(0))),
        steps(config.get<int64_t>("train.local_update_steps", 30, "steps a round", at_least(1))),
        shuffle(config.get("dataloader.shuffle", true, "mixed order")),
        type(config.get("train.optimizer.type", "SGD", "optimiser", one_of({"SGD", "AdamW"}))),
        out(config.get("outdir", "exp", "run folder")),
        splits(config.get("data.splits", std::vector<double>{0.8, 0.1, 0.1}, "shares", within(0, 1))),
        names(config.get("names", std::vector<std::string>{}, "some names")),
        rank(config.get<int64_t>("llm.adapter.args[0].r", 8, "LoRA rank", at_least(1))),
        text(config.dump()),
        described(config.describe("")),
        schema(config.json_schema()) {
    config.finish();
  }
  auto tied() const { return std::tie(lr, steps, shuffle, type, out, splits, names, rank); }

  double lr;
  int64_t steps;
  bool shuffle;
  std::string type, out;
  std::vector<double> splits;
  std::vector<std::string> names;
  int64_t rank;
  std::string text, described, schema;
};

void expect_round_trip(std::string const& yaml) {
  Values const first(Config::parse(yaml, "run.yaml"));
  Values const second(Config::parse(first.text, "config.yaml"));
  EXPECT_EQ(first.tied(), second.tied()) << first.text;
  EXPECT_EQ(first.text, second.text);
}

TEST(ConfigText, DumpReadsBackToTheSameValues) {
  expect_round_trip("");
  expect_round_trip(
      "train: {optimizer: {lr: 1.2345678901234567e-5, type: AdamW}, local_update_steps: "
      "9223372036854775807}\n");
  expect_round_trip("data: {splits: [1, 0, 0]}\nnames: [a, 'b, c', '']\nllm: {adapter: {args: [{r: 64}]}}\n");
}

TEST(ConfigText, StringsThatLookLikeSomethingElseSurvive) {
  for (auto const* text :
       {"true", "12", "~", "null", "a: b", "# no comment", "- x", "*anchor", "it's \\\"quoted\\\"",
        "two\\nlines", "tab\\t", "\\u00fcber", "\\U0001F600", " padded ", "[1]", "%x", "@y", "'"})
    expect_round_trip(std::string("outdir: \"") + text + "\"\nnames: [\"" + text + "\"]\n");
}

TEST(ConfigText, DumpNamesOverriddenAndDefaultValues) {
  auto config = Config::parse("outdir: a\n", "run.yaml");
  config.set("outdir", "b");
  Values const values(config);
  auto dumped = Config::parse(values.text, "x");
  EXPECT_EQ(dumped.get("outdir", "", ""), "b");
  EXPECT_TRUE(dumped.has("train.local_update_steps"));
}

TEST(ConfigText, KeysInOrderOfDeclarationOnce) {
  auto config = Config::parse("", "run.yaml");
  config.get("b", 1.0, "first");
  config.get("a", "x", "second", one_of({"x", "y"}));
  config.get("b", 1.0, "first");
  auto const keys = config.keys();
  ASSERT_EQ(keys.size(), 2u);
  EXPECT_EQ(keys[0].path, "b");
  EXPECT_EQ(keys[0].type, "float");
  EXPECT_EQ(keys[1].doc, "second");
  EXPECT_EQ(keys[1].constraint.choices, (std::vector<std::string>{"x", "y"}));
}

TEST(ConfigText, DescribeHasTypeDefaultRangeAndMeaning) {
  Values const values(Config::parse("", "run.yaml"));
  for (auto const* part : {"train.optimizer.lr", "float", "0.1", "more than 0", "learning rate",
                           "one of SGD, AdamW", "list of float", "bool", "LoRA rank"})
    EXPECT_THAT(values.described, testing::HasSubstr(part));
}

TEST(ConfigText, DescribeFilters) {
  auto config = Config::parse("", "run.yaml");
  config.get("train.lr", 0.1, "learning rate");
  config.get("eval.freq", 1.0, "how often");
  EXPECT_THAT(config.describe("eval"), testing::HasSubstr("how often"));
  EXPECT_THAT(config.describe("eval"), testing::Not(testing::HasSubstr("learning rate")));
  EXPECT_EQ(config.describe("nothing"), "");
}

/// Every node of the schema uses draft-07 words with the right kind of value.
void expect_schema_node(json const& node, std::string const& path) {
  ASSERT_TRUE(node.is_object()) << path;
  std::set<std::string> const types{"object", "array", "string", "number", "integer", "boolean"};
  ASSERT_TRUE(node.contains("type") || node.contains("enum")) << path;
  if (!node.contains("type")) return;
  for (auto const& type : node["type"].is_array() ? node["type"] : json::array({node["type"]}))
    EXPECT_TRUE(types.count(type) == 1 || type == "null") << path << ": " << type;
  EXPECT_FALSE(node.contains("enum") && node["enum"].empty()) << path;
  auto const is = [&](char const* type) {
    return node["type"] == type || (node["type"].is_array() && node["type"].front() == type);
  };
  if (is("array")) expect_schema_node(node.at("items"), path + "[]");
  if (is("object"))
    for (auto const& [name, child] : node.at("properties").items())
      expect_schema_node(child, path + "." + name);
}

TEST(ConfigText, SchemaIsDraft07) {
  auto const schema = json::parse(Values(Config::parse("", "run.yaml")).schema);
  EXPECT_EQ(schema.at("$schema"), "http://json-schema.org/draft-07/schema#");
  expect_schema_node(schema, "");
  auto const& optimizer =
      schema.at("properties").at("train").at("properties").at("optimizer").at("properties");
  EXPECT_EQ(optimizer.at("type").at("enum"), (json{"SGD", "AdamW", nullptr}));
  EXPECT_EQ(optimizer.at("type").at("default"), "SGD");
  EXPECT_EQ(optimizer.at("lr").at("type"), (json{"number", "string", "null"}));
  EXPECT_EQ(optimizer.at("lr").at("exclusiveMinimum"), 0);
  EXPECT_EQ(optimizer.at("lr").at("default"), 0.1);
  EXPECT_THAT(optimizer.at("lr").at("description").get<std::string>(), testing::HasSubstr("learning rate"));
  EXPECT_EQ(schema.at("additionalProperties"), false);
  auto const& rank =
      schema.at("properties").at("llm").at("properties").at("adapter").at("properties").at("args");
  EXPECT_EQ(rank.at("items").at("properties").at("r").at("type"), (json{"integer", "null"}));
  EXPECT_EQ(rank.at("items").at("properties").at("r").at("minimum"), 1);
}

}  // namespace
}  // namespace fsllm
