// SPDX-License-Identifier: Apache-2.0
// Templates of damaged or hostile models: no operation takes more than its share of time, memory or stack.
#include <chrono>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/jinja/jinja.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

using nlohmann::ordered_json;

std::string rendered(std::string const& source, ordered_json const& variables = ordered_json::object()) {
  return JinjaTemplate(source, "t").render(variables).text;
}

/// `begin` + n times `part` + `end`.
std::string chain(std::string const& begin, std::string const& part, std::string const& end, int n = 10000) {
  std::string text = begin;
  for (int i = 0; i < n; ++i) text += part;
  return text + end;
}

TEST(JinjaBudget, LongChainsAndDeepNestsAreRefused) {
  for (auto const& source : {chain("{{ 1", "+1", " }}"),
                             chain("{{ 1", "*1", " }}"),
                             chain("{{ 1", "~1", " }}"),
                             chain("{{ 1", " and 1", " }}"),
                             chain("{{ 1", " or 1", " }}"),
                             chain("{{ 2", "**1", " }}"),
                             chain("{{ ", "-", "1 }}"),
                             chain("{{ ", "not ", "1 }}"),
                             chain("{{ 'a'", "|trim", " }}"),
                             chain("{{ 1", " is defined", " }}"),
                             chain("{{ a", ".b", " }}"),
                             chain("{{ a", "[0]", " }}"),
                             chain("{{ a", "()", " }}"),
                             chain("{{ a", "[1:2]", " }}"),
                             chain("{{ 1", " if 1", " }}"),
                             chain("{{ ", "[", ""),
                             chain("{{ ", "(", ""),
                             chain("{{ ", "{1:", ""),
                             chain("{{ ", "1 if 1 else ", "1 }}"),
                             chain("", "{% if 1 %}", ""),
                             chain("", "{% for a in b %}", ""),
                             chain("{% if 1 %}", "{% elif 1 %}", "{% endif %}"),
                             chain("", "{% macro a() %}", ""),
                             chain("", "{% set a %}", ""),
                             chain("{{ a", "(1", ""),
                             chain("{% filter trim", "|trim", " %}{% endfilter %}"),
                             chain("{{ a(b=", "a(b=", "")})
    EXPECT_ERROR(rendered(source), "t:1: ");
  EXPECT_EQ(rendered(chain("{{ 0", "+1", " }}", 300)), "300") << "what people write is far from that";
}

TEST(JinjaBudget, CallsOfMacrosAndExpressionsShareOneDepth) {
  auto const deep = chain("{% macro m(n) %}{{ m(n)", "+1", " }}{% endmacro %}{{ m(1) }}", 300);
  EXPECT_ERROR(rendered(deep), "nested too deeply");
}

TEST(JinjaBudget, EveryOperationPaysForItsWork) {
  std::string const big = "{% set s = 'ab' * 20000000 %}", list = "{% set l = range(1000000) %}",
                    texts = "{% set l = ('ab ' * 300000).split() %}";
  for (auto const& source : {
           big + "{{ s ~ s ~ s ~ s ~ s ~ s ~ s ~ s }}",
           big + "{{ s + s + s + s + s + s + s + s }}",
           big + "{{ s|replace('a', 'aaaaaaaaaaaaaaaa') }}",
           big + "{{ s.replace('a', s) }}",
           big + "{{ s|list }}",
           big + "{{ s|upper|lower|title|capitalize }}",
           big + "{{ s.title() }}",
           big + "{{ s.split('a') }}",
           big + "{{ s.rsplit('a') }}",
           big + "{{ s|tojson|tojson|tojson }}",
           big + "{{ [s, s, s, s]|string }}",
           big + "{{ [s, s, s, s, s, s, s]|join(s) }}",
           big + "{{ s.join([s, s, s, s, s]) }}",
           big + "{{ s[::-1] }}",
           big + "{{ s|reverse }}",
           big + "{{ s|indent(s) }}",
           big + "{% for c in s %}{% endfor %}",
           big + "{% set x = [s] %}{% for i in range(1000) %}{% set y = x + x %}{% endfor %}",
           big + "{% for i in range(1000) %}{% set y = s %}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s.find('c') }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s.count('c') }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ 'c' in s }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s == s }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s < s }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s|length }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s.strip('ab') }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s[5] }}{% endfor %}",
           big + "{% for i in range(1000) %}{{ s.startswith(s) }}{% endfor %}",
           big + "{% macro m(a) %}{% endmacro %}{% for i in range(1000) %}{{ m(s) }}{% endfor %}",
           big + "{% set ns = namespace(x=s) %}{% for i in range(1000) %}{% set ns.x = s %}{% endfor %}",
           list + "{{ l|unique }}",
           list + "{{ l|sort|sort|sort|sort }}",
           list + "{{ l|map('string')|join }}",
           list + "{% for i in l %}{{ i in l }}{% endfor %}",
           list + "{{ l + l + l + l + l + l }}",
           list + "{% for i in l %}{{ l|first }}{% endfor %}",
           list + "{{ l|tojson(indent=64) }}",
           list + "{% for i in l %}{{ l[::2] == l }}{% endfor %}",
           texts + "{{ l|unique|list }}{{ l|sort }}" + "{% for i in l %}{{ l|sort }}{% endfor %}",
           texts + "{% for i in l %}{{ l|map('replace', 'a', 'b')|list }}{% endfor %}",
           texts + "{% for i in l %}{{ l|select('in', l) }}{% endfor %}",
           std::string("{% set l = [1] %}{% for i in range(60) %}{% set l = l + l %}{% endfor %}") +
               "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor "
               "%}",
           std::string("{% set ns = namespace(s='ab') %}{% for i in range(60) %}") +
               "{% set ns.s = ns.s.replace('a', ns.s) %}{% endfor %}",
       }) {
    auto const begin = std::chrono::steady_clock::now();
    EXPECT_ERROR(rendered(source), "t:1: ");
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(60)) << source.substr(0, 120);
  }
}

TEST(JinjaBudget, NumbersAtTheEndsOfTheirRange) {
  std::string const least = "(0-9223372036854775807-1)", most = "9223372036854775807";
  for (std::string const& expression : std::vector<std::string>{
           "range(0, " + least + ")", "range(0, 5, 0)", "range(" + most + ")", least + "|abs", "-" + least,
           least + " - 1", least + " // -1", most + " + 1", most + " * 2", "10 ** 400", "1 // 0", "1 % 0"})
    EXPECT_ERROR(rendered("{{ " + expression + " }}"), "t:1: ");
  auto const value = [](std::string const& expression) { return rendered("{{ " + expression + " }}"); };
  EXPECT_EQ(value("range(0, 5, " + most + ")|list"), "[0]");
  EXPECT_EQ(value("range(5, 0, " + least + ")|list"), "[5]");
  EXPECT_EQ(value("'abc'[::" + least + "]"), "c");
  EXPECT_EQ(value("'abc'[::" + most + "]"), "a");
  EXPECT_EQ(value("'abc'[" + least + ":" + most + "]"), "abc");
  EXPECT_EQ(value("[1,2,3][" + most + ":" + least + ":-1]"), "[3, 2, 1]");
  EXPECT_EQ(value(least + " // 2"), "-4611686018427387904");
  EXPECT_EQ(value(least + " // 3"), "-3074457345618258603");
  EXPECT_EQ(value(most + " % -2"), "-1");
  EXPECT_EQ(value("-7 // 2 ~ ' ' ~ -7 % 3 ~ ' ' ~ 7 % -3"), "-4 2 -2");
  EXPECT_EQ(value(least + " % " + most), "9223372036854775806");
  EXPECT_EQ(value("'' * " + most), "");
}

TEST(JinjaBudget, AChatOfAMegabyteIsFarFromIt) {
  auto messages = ordered_json::array();
  for (int i = 0; i < 200; ++i)
    messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", std::string(5000, 'x')}});
  auto const text = rendered(
      "{% for m in messages %}{% if m.role == 'user' %}[{{ m['content']|trim }}]{% else %}{{ "
      "m.content.strip() + "
      "'</s>' }}{% endif %}{% endfor %}",
      {{"messages", messages}});
  EXPECT_EQ(text.size(), 200U * 5000 + 100 * 2 + 100 * 4);
}

TEST(JinjaDate, IsTheSameOnEveryDay) {
  EXPECT_EQ(rendered("{{ strftime_now('%d %b %Y') }}"), "26 Jul 2024") << "LLaMA 3's own";
  EXPECT_EQ(rendered("{{ strftime_now('%Y-%m-%d %H:%M:%S %A %j') }}"), "2024-07-26 00:00:00 Friday 208");
  EXPECT_EQ(rendered("{{ strftime_now('') }}"), "");
  EXPECT_EQ(
      JinjaTemplate("{{ strftime_now('%B %d, %Y') }}", "t", "2025-01-02").render(ordered_json::object()).text,
      "January 02, 2025");
  EXPECT_ERROR(rendered("{{ strftime_now() }}"), "needs a format");
  EXPECT_ERROR(rendered("{{ strftime_now('%999999999Y') }}"), "writes too much");
  EXPECT_ERROR(JinjaTemplate("", "t", "2025-1-2"), "'2025-1-2' is no date");
  EXPECT_FALSE(is_date("2025-02-40") || is_date("2025-01-02x") || is_date(""));
}

}  // namespace
}  // namespace fsllm
