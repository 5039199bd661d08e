// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdlib>
#include <fstream>
#include <memory>

#include "bad_input.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {

using Texts = std::vector<std::vector<int>>;

constexpr int kPrompts = 20, kTokens = 24;

inline std::string python() {
  char const* found = std::getenv("FSLLM_TEST_PYTHON");
  return found == nullptr ? "" : found;
}

/// An interpreter with llama-cpp-python or xllamacpp, which need not be that of the other packages.
inline std::string llama_python() {
  char const* found = std::getenv("FSLLM_LLAMA_PYTHON");
  return found == nullptr || *found == '\0' ? python() : found;
}

/// Stories260K trained a little on GSM8K: one run for all tests of this file.
class Export : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (test_data("models/stories260K").empty()) return;
    place_ = std::make_unique<TempDir>();
    auto const config = write_config(
        dir(), stories_on_gsm8k(dir(), 96, 4,
                                "expname: run\nseed: 1\nfederate: {client_num: 3, total_round_num: 2}\n"
                                "train: {local_update_steps: 8, batch_or_epoch: batch, optimizer: {type: "
                                "AdamW, lr: 0.01}}\n"));
    trained_ = test::run(dir(), 2, {"fsllm_hpc", "--cfg", config.string()});
    std::ofstream prompts(dir() / "prompts.jsonl");
    for (int i = 0; i < kPrompts; ++i)
      prompts << nlohmann::json{{"id", i},
                                {"type", "generate_until"},
                                {"context", kBeginnings[i % 5] + std::string(kNames[i / 5]) + " had"},
                                {"until", nlohmann::json::array()},
                                {"max_tokens", kTokens},
                                {"temperature", 0}}
                     .dump()
              << "\n";
  }
  static void TearDownTestSuite() { place_.reset(); }
  void SetUp() override {
    FSLLM_NEED_TEST_DATA("models/stories260K");
    ASSERT_EQ(trained_.exit_code, 0) << trained_.err << trained_.out;
  }

  static std::filesystem::path dir() { return place_->path(); }
  static std::string model() { return test_data("models/stories260K").string(); }
  static std::filesystem::path adapter() { return dir() / "run/adapter"; }
  static Outcome export_to(std::string const& form, std::filesystem::path const& out,
                           std::vector<std::string> const& more = {}) {
    std::vector<std::string> words{"fsllm_export", "--to", form, "--out", out.string()};
    if (more.empty()) words.insert(words.end(), {"--run", (dir() / "run").string()});
    words.insert(words.end(), more.begin(), more.end());
    return test::run(dir(), 0, words);
  }
  static void must_export(std::string const& form, std::string const& name,
                          std::vector<std::string> const& more = {}) {
    auto words = more;
    words.insert(words.end(), {"--run", (dir() / "run").string()});
    auto const outcome = export_to(form, dir() / name, words);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err << outcome.out;
  }

  /// The ids that a program of ours answers with.
  static Texts ours(std::filesystem::path const& model, std::filesystem::path const& adapter = {}) {
    std::vector<std::string> words{"fsllm_eval",
                                   "--model",
                                   model.string(),
                                   "--requests",
                                   (dir() / "prompts.jsonl").string(),
                                   "--responses",
                                   (dir() / "ours.jsonl").string()};
    if (!adapter.empty()) words.insert(words.end(), {"--adapter", adapter.string()});
    auto const outcome = test::run(dir(), 0, words);
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return ids_in(dir() / "ours.jsonl");
  }
  static Texts ids_in(std::filesystem::path const& file) {
    Texts texts;
    for (auto const& line : read_events(file)) texts.push_back(line.at("ids").get<std::vector<int>>());
    return texts;
  }
  /// Exit code of a script in tests/e2e, whose output goes into `log`.
  static int script(std::string const& interpreter, std::string const& name,
                    std::vector<std::filesystem::path> const& words) {
    auto command = interpreter + " " + source_file("tests/e2e/" + name).string();
    for (auto const& word : words) command += " " + word.string();
    auto const status = std::system((command + " > " + (dir() / "log").string() + " 2>&1").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  static std::string log() { return read_text(dir() / "log"); }

  static constexpr char const* kBeginnings[] = {"Once upon a time, ", "One day, ", "In the park, ",
                                                "There was a time when ", "At night, "};
  static constexpr char const* kNames[] = {"Tom", "Lily", "a dog", "the cat"};
  static inline std::unique_ptr<TempDir> place_;
  static inline Outcome trained_;
};

}  // namespace fsllm::test
