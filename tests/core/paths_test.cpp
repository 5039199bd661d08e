// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/paths.hpp"

#include <cstdlib>

#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

class Paths : public testing::Test {
 protected:
  Paths() {
    setenv("HOME", "/home/ada", 1);
    setenv("FSLLM_TEST_A", "one", 1);
    setenv("FSLLM_TEST_B", "/two/$FSLLM_TEST_A", 1);
    setenv("FSLLM_TEST_EMPTY", "", 1);
    unsetenv("FSLLM_TEST_NONE");
  }
};

TEST_F(Paths, ExpandAsPythonExpandsThem) {
  for (auto const& [path, expected] :
       std::vector<std::pair<std::string, std::string>>{{"~", "/home/ada"},
                                                        {"~/runs", "/home/ada/runs"},
                                                        {"a/~/b", "a/~/b"},
                                                        {"$FSLLM_TEST_A/x", "one/x"},
                                                        {"x/${FSLLM_TEST_A}y", "x/oney"},
                                                        {"$FSLLM_TEST_B", "/two/$FSLLM_TEST_A"},
                                                        {"~/$FSLLM_TEST_A", "/home/ada/one"},
                                                        {"a$FSLLM_TEST_EMPTY/b", "a/b"},
                                                        {"cost$", "cost$"},
                                                        {"a$/b", "a$/b"},
                                                        {"${FSLLM_TEST_A", "${FSLLM_TEST_A"},
                                                        {"${}", "${}"},
                                                        {"", ""},
                                                        {"plain/path.txt", "plain/path.txt"}})
    EXPECT_EQ(expand_path(path, "outdir"), expected) << path;
  EXPECT_EQ(expand_path("~root/x", "outdir"), "/root/x");
}

TEST_F(Paths, WhatIsUnknownIsNamed) {
  EXPECT_ERROR(expand_path("$FSLLM_TEST_NONE/x", "outdir"),
               "outdir = '$FSLLM_TEST_NONE/x' (the environment has no variable FSLLM_TEST_NONE)");
  EXPECT_ERROR(expand_path("${FSLLM_TEST_NONE}", "outdir"), "no variable FSLLM_TEST_NONE");
  EXPECT_ERROR(expand_path("~nosuchuser/x", "outdir"), "no home folder of a user 'nosuchuser' is known");
}

TEST_F(Paths, TheConfigurationKeepsThemAsTheyWereWritten) {
  auto config =
      Config::parse("outdir: ~/runs\nroots: [$FSLLM_TEST_A, b]\nbad: $FSLLM_TEST_NONE\n", "run.yaml");
  EXPECT_EQ(get_path(config, "outdir", "exp", "."), "/home/ada/runs");
  EXPECT_EQ(get_paths(config, "roots", "."), (std::vector<std::string>{"one", "b"}));
  EXPECT_ERROR(get_path(config, "bad", "", "."), "run.yaml:3: bad = '$FSLLM_TEST_NONE'");
  EXPECT_NE(config.dump().find("~/runs"), std::string::npos);
}

}  // namespace
}  // namespace fsllm::test
