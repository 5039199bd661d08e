// SPDX-License-Identifier: Apache-2.0
// tests/e2e/bad_input/*.yaml: configurations as people get them wrong. The first line of each is the message;
// "# np 2" runs it on two ranks.
#include <algorithm>

#include "bad_input.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> bad_configurations() {
  std::vector<std::string> names;
  for (auto const& entry : fs::directory_iterator(source_file("tests/e2e/bad_input")))
    names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

TEST(BadConfigurations, EndWithTheMessageInTheirFirstLine) {
  TempDir dir;
  write_text_model(dir / "model");
  write_data_sets(dir / "data");
  auto const names = bad_configurations();
  EXPECT_GE(names.size(), 46U);
  for (auto const& name : names) {
    SCOPED_TRACE(name);
    auto const path = source_file("tests/e2e/bad_input/" + name + ".yaml");
    auto const text = read_text(path);
    std::vector<std::string> words{"fsllm_hpc",  "--cfg",       path.string(), "outdir",    dir.path(),
                                   "model.type", dir / "model", "data.root",   dir / "data"};
    auto const unless_given = [&](char const* word, std::string const& key, std::string const& value) {
      if (text.find(word) == std::string::npos) words.insert(words.end(), {key, value});
    };
    unless_given("\ndata:", "data.type", "alpaca@llm");
    unless_given("client_num", "federate.client_num", "3");
    bool const two = text.find("# np 2\n") != std::string::npos;
    expect_message(run(dir.path(), two ? 2 : 0, words), text.substr(2, text.find('\n') - 2));
    EXPECT_FALSE(fs::exists(dir / "run")) << "a run directory was left behind";
  }
}

}  // namespace
}  // namespace fsllm::test
