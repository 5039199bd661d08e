// SPDX-License-Identifier: Apache-2.0
// Expected values by Python 3.11's re.
#include "fsllm/core/python_regex.hpp"

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm {
namespace {

bool whole(std::string const& pattern, std::string const& text) {
  return PythonRegex(pattern, "p").fullmatch(text);
}

TEST(PythonRegex, FullMatchIsTheWholeText) {
  EXPECT_TRUE(whole("q|q_proj", "q_proj"));
  EXPECT_FALSE(whole("q_proj", "x.q_proj"));
  EXPECT_FALSE(whole("q_proj", "q_proj\n"));
  EXPECT_FALSE(whole("q_proj$", "q_proj\n"));
  EXPECT_TRUE(whole(R"(.*\.(q|v)_proj)", "model.layers.0.self_attn.v_proj"));
  EXPECT_TRUE(PythonRegex("q_proj", "p").match("q_proj.x"));
  EXPECT_TRUE(PythonRegex("q_proj$", "p").match("q_proj\n"));
  EXPECT_FALSE(PythonRegex(R"(q_proj\Z)", "p").match("q_proj\n"));
}

TEST(PythonRegex, WhatPythonHasAndEcmaScriptLacks) {
  std::string const name = "model.layers.11.self_attn.q_proj";
  for (auto const* pattern :
       {R"(.*\.(?P<which>q_proj|v_proj))", R"((?i).*SELF_ATTN\.(q|v)_proj)", R"(.*\.(?i:Q)_proj)",
        R"(.*(?<=self_attn\.)q_proj)", R"(.*(?<!mlp\.)q_proj)", R"((?P<d>1)*.*layers\.(?P<n>\d)(?P=n)\..*)",
        R"((?#comment).*q_proj)", R"((?ix) .* \. self_attn \. (Q|V) _proj  # attention)", R"(\A.*_proj\Z)",
        R"(model\.layers\.(?>1+)\..*)", R"((?s:.)*)", R"((?a)\w+(\.\w+){,4})", R"((model)?(?(1)\..*|x))",
        "(?u).*", "(?im-s:MODEL).*", R"(.*\.1{2}\..*)", R"([^]]+)", R"(\u006dodel.*)", R"([[m]odel.*)"})
    EXPECT_TRUE(whole(pattern, name)) << pattern;
  EXPECT_FALSE(whole("[[:alpha:]]+", "abc")) << "a set of [ : a l p h and a bracket";
  EXPECT_TRUE(whole("[[:alpha:]]", "a]"));
  EXPECT_TRUE(whole("x{,2}y", "xxy"));
  EXPECT_FALSE(whole("x{,2}y", "x{,2}y"));
  EXPECT_TRUE(whole("x{a}", "x{a}"));
  EXPECT_TRUE(whole(R"(a\vb)",
                    "a\x0b"
                    "b"));
  EXPECT_FALSE(whole(R"(a\vb)", "a\nb"));
}

TEST(PythonRegex, WhatPythonRefuses) {
  for (auto const* pattern :
       {"(",       "a)",     "*a",    "[a",      R"(\Qa\E)", R"(\h)",  R"(a\K)", "(?<n>a)",
        "(?'n'a)", "(?R)",   "(?1)a", "(?|a|b)", "(*UTF)a",  "a(?i)b", "(?z)a",  "(?P<n>a)(?P<n>b)",
        "(?P=n)",  "a{2,1}", "\\",    R"(\u12)", "(?#a",     "(?i"})
    EXPECT_ERROR(PythonRegex(pattern, "target_modules"),
                 fmt::format("target_modules = '{}' (not a regular expression: ", pattern));
}

TEST(PythonRegex, StepsAreBounded) {
  PythonRegex const slow("(a+)+[bc]", "target_modules");
  EXPECT_ERROR(slow.fullmatch(std::string(60, 'a')), "matching 'aaaa");
}

}  // namespace
}  // namespace fsllm
