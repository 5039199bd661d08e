// SPDX-License-Identifier: Apache-2.0
// Against transformers: tests/reference/make_chat_goldens.py made the expected texts.
#include "fsllm/jinja/jinja.hpp"

#include <map>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/text/template.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

ordered_json variables_of(json const& messages, bool generation_prompt) {
  auto list = ordered_json::array();
  for (auto const& message : messages)
    list.push_back({{"role", message.at("role")}, {"content", message.at("content")}});
  return {{"messages", list},     {"tools", nullptr},
          {"documents", nullptr}, {"add_generation_prompt", generation_prompt},
          {"bos_token", "<s>"},   {"eos_token", "</s>"}};
}

void expect_text(std::string const& source, ordered_json const& variables, json const& expected) {
  if (expected.contains("refused")) {
    EXPECT_ERROR(JinjaTemplate(source, "t").render(variables), "t:");
    return;
  }
  try {
    EXPECT_EQ(JinjaTemplate(source, "t").render(variables).text, expected.at("text").get<std::string>());
  } catch (Error const& error) {
    ADD_FAILURE() << error.what();
  }
}

/// Runs `test` over the rows of a golden file; gives how many there are.
int64_t for_each_golden(std::string const& name, std::function<void(json const&)> const& test) {
  int64_t rows = 0;
  for_each_json_record(test::source_file("tests/text/golden/chat/" + name),
                       [&](json const& row, RecordPlace const& place) {
                         SCOPED_TRACE(place.file + ":" + std::to_string(place.line));
                         test(row);
                         ++rows;
                       });
  return rows;
}

TEST(Jinja, ConstructsMeanWhatTheyMeanInPython) {
  auto const turns = json::parse(
      R"([{"role":"user","content":"Where is \"Ürümqi\"?\n"},{"role":"assistant","content":" In China.  "}])");
  EXPECT_GE(for_each_golden(
                "constructs.jsonl",
                [&](json const& row) { expect_text(row.at("source"), variables_of(turns, true), row); }),
            60);
}

TEST(Jinja, ChatsUnderTemplatesOfModelFamilies) {
  std::map<std::string, std::string> templates;
  for_each_golden("templates.jsonl", [&](json const& row) { templates[row.at("name")] = row.at("source"); });
  EXPECT_GE(templates.size(), 14U);
  EXPECT_GE(for_each_golden("chats.jsonl",
                            [&](json const& row) {
                              expect_text(templates.at(row.at("template")),
                                          variables_of(row.at("messages"), row.at("add_generation_prompt")),
                                          row);
                            }),
            250);
}

TEST(Jinja, ChatsUnderTemplatesOfRealModels) {
  FSLLM_NEED_TEST_DATA("tokenizers/mistral-v3/tokenizer_config.json");
  std::map<std::string, std::string> templates;
  for_each_golden("real.jsonl", [&](json const& row) {
    auto const name = row.at("file").get<std::string>();
    bool const fetched = name.starts_with(".deps");
    auto const file = fetched ? test::source_file(name) : test::test_data(name);
    if (fetched && !std::filesystem::exists(file)) return;
    auto& source = templates[name];
    if (source.empty()) source = read_chat_template(fetched ? file.string() : file.parent_path().string());
    expect_text(source, variables_of(row.at("messages"), row.at("add_generation_prompt")), row);
  });
}

void expect_refused(std::string const& source, std::string const& message) {
  SCOPED_TRACE(source);
  EXPECT_ERROR(JinjaTemplate(source, "x.jinja").render({{"a", 1}}), message);
}

TEST(Jinja, WhatIsOutsideOfTheSubsetIsNamedWithItsLine) {
  expect_refused("a\n{% include 'x' %}",
                 "x.jinja:2: {% include %} is outside of the part of Jinja known here");
  expect_refused("\n\n{{ a | pprint }}", "x.jinja:3: the filter 'pprint' is outside");
  expect_refused("{{ a is sameas 1 }}", "x.jinja:1: the test 'sameas' is outside");
  expect_refused("{% for x in a recursive %}{% endfor %}", "x.jinja:1: a recursive loop is outside");
  expect_refused("{% call m() %}{% endcall %}", "x.jinja:1: {% call %} is outside");
  expect_refused("x\n{{ f(*a) }}", "x.jinja:2: arguments by * or **");
  expect_refused("{{ a.b.c }}", "x.jinja:1: 'b' is missing in a whole number");
  expect_refused("{% if a %}\n{% endfor %}", "x.jinja:2: {% endfor %} closes nothing");
  expect_refused("{% if a %}\n", "{% endif %} is missing at the end");
  expect_refused("\n{{ a", "x.jinja:2: a tag {{ has no end }}");
  expect_refused("{{ 'a }}", "x.jinja:1: a text has no closing quote");
  expect_refused("{# a", "x.jinja:1: a comment {# has no end #}");
  expect_refused("{{ a ? b }}", "x.jinja:1: the character '?' has no meaning here");
  expect_refused("{{ raise_exception('roles') }}", "x.jinja:1: the template refuses: roles");
}

TEST(Jinja, WorkIsBounded) {
  expect_refused("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
                 "too many steps");
  expect_refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself too often");
  expect_refused("{% set n = namespace(x=[]) %}{% for i in range(1000) %}{% set n.x = [n.x] %}{% endfor %}",
                 "nested too deeply");
  expect_refused(
      "{% set n = namespace(x=[]) %}{% for i in range(90) %}{% set n.x = [n.x, n.x] %}{% endfor %}",
      "too many steps");
  expect_refused(
      "{% set n = namespace(x='ab') %}{% for i in range(90) %}{% set n.x = n.x + n.x %}{% endfor %}",
      "becomes too long");
  expect_refused("{% set n = namespace() %}{% set n.x = [n] %}{{ n }}", "nested too deeply");
  expect_refused("{{ 'a' * 1000000000 }}", "repeated too often");
  expect_refused("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}", "nested too deeply");
  expect_refused("{% for i in range(10000000) %}{% endfor %}", "range() is too long");
}

TEST(Jinja, GenerationBlocksAreMarked) {
  auto const out =
      JinjaTemplate("a{% generation %}bc{% endgeneration %}d{% generation %}e{% endgeneration %}", "t")
          .render(ordered_json::object());
  EXPECT_EQ(out.text, "abcde");
  EXPECT_EQ(out.generated, (std::vector<std::pair<size_t, size_t>>{{1, 3}, {4, 5}}));
}

}  // namespace
}  // namespace fsllm
