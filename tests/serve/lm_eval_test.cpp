// SPDX-License-Identifier: Apache-2.0
// lm-evaluation-harness over fsllm_serve says what it says with its own backend.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "server.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

class LmEval : public testing::Test {
 protected:
  void SetUp() override {
    if (model_.empty()) GTEST_SKIP() << "no test data: models/stories260K";
    char const* python = std::getenv("FSLLM_TEST_PYTHON");
    python_ = python == nullptr ? "" : python;
    if (python_.empty() || std::system((python_ + " -c 'import lm_eval' 2> /dev/null").c_str()) != 0)
      GTEST_SKIP() << "no Python with lm_eval (FSLLM_TEST_PYTHON)";
  }

  void script(std::string const& arguments) const {
    auto const log = dir_ / "python.txt";
    auto const command =
        fmt::format("{} {} {} > {} 2> {}", python_, source_file("tests/serve/lm_eval_same.py").string(),
                    arguments, (dir_ / "report.json").string(), log.string());
    ASSERT_EQ(std::system(command.c_str()), 0) << read_text(log);
  }

  /// Returns the sum of the log-likelihoods of whole texts.
  double compare(Server const& server, std::string const& name, std::string const& adapter) const {
    std::filesystem::create_directories(dir_ / name);
    script(fmt::format("http://127.0.0.1:{} {} {} {} {}", server.port(), name, model_.string(),
                       (dir_ / name).string(), adapter));
    if (HasFatalFailure()) return 0;
    auto const report = json::parse(read_text(dir_ / "report.json"));
    auto const &choice = report["serve_choice"], &whole = report["serve_perplexity"],
               &text = report["serve_text"];
    EXPECT_EQ(choice["items"], 27);
    EXPECT_LE(choice["largest"], 1e-4);
    EXPECT_EQ(choice["greedy_different"], 0);
    EXPECT_EQ(whole["items"], 4);
    EXPECT_LE(whole["largest"], 1e-4);
    EXPECT_EQ(text["items"], 12);
    EXPECT_EQ(text["different"], 0) << text["texts"];
    return whole["total"];
  }

  TempDir dir_;
  std::filesystem::path model_ = test_data("models/stories260K");
  std::string python_;
};

TEST_F(LmEval, EqualsItsOwnBackendWithAndWithoutAnAdapter) {
  auto const adapter = (dir_ / "adapter").string();
  script(fmt::format("adapter {} {}", model_.string(), adapter));
  if (HasFatalFailure()) return;
  Server const server(dir_.path(), {"--model", model_.string(), "--adapter", "tuned=" + adapter});
  auto const base = compare(server, "stories260K", ""), tuned = compare(server, "tuned", adapter);
  EXPECT_GT(std::abs(base - tuned), 1);
}

}  // namespace
}  // namespace fsllm::test
