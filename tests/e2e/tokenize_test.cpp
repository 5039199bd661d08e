// SPDX-License-Identifier: Apache-2.0
// fsllm_inspect MODEL_DIR --tokenize on every kind of tokenizer file, against what the Python packages gave.
#include <fstream>

#include "fsllm/io/jsonl.hpp"
#include "process.hpp"

namespace fsllm::test {
namespace {

using nlohmann::json;

std::vector<json> rows_of(std::filesystem::path const& file) {
  std::vector<json> rows;
  for_each_json_record(file, [&](json const& row, RecordPlace const&) { rows.push_back(row); });
  return rows;
}

class Tokenize : public testing::TestWithParam<std::string> {};

TEST_P(Tokenize, GivesTheIdsAndTextsOfThePythonPackages) {
  TempDir dir;
  auto const model = source_file("tests/text/golden") / GetParam();
  auto const cases = rows_of(model / "cases.jsonl");
  std::vector<json> expected;
  {
    std::ofstream questions(dir / "in.jsonl");
    for (auto const& each : cases) {
      questions << json{{"text", each.at("text")}} << "\n"
                << json{{"text", each.at("text")}, {"add_special_tokens", false}} << "\n";
      expected.push_back({{"ids", each.at("ids")}});
      expected.push_back({{"ids", each.at("plain")}});
      if (!each.contains("text_of_ids")) continue;
      questions << json{{"ids", each.at("ids")}} << "\n";
      expected.push_back({{"text", each.at("text_of_ids")}});
    }
  }
  auto const outcome =
      run(dir.path(), 0, {"fsllm_inspect", model.string(), "--tokenize", (dir / "in.jsonl").string()});
  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  std::ofstream(dir / "out.jsonl") << outcome.out;
  EXPECT_EQ(rows_of(dir / "out.jsonl"), expected);
}

std::vector<std::string> goldens() {
  std::vector<std::string> names;
  for (auto const& entry : std::filesystem::directory_iterator(source_file("tests/text/golden")))
    if (std::filesystem::exists(entry.path() / "cases.jsonl"))
      names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Goldens, Tokenize, testing::ValuesIn(goldens()),
                         [](auto const& test) { return test.param; });

}  // namespace
}  // namespace fsllm::test
