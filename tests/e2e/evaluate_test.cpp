// SPDX-License-Identifier: Apache-2.0
// fsllm_eval: answers that depend on the questions alone, and what it takes from a run.
#include <fstream>

#include "federation.hpp"
#include "text_fixture.hpp"

namespace fsllm::test {
namespace {

namespace fs = std::filesystem;

/// Requests of all kinds and of many lengths, in no order.
void write_requests(fs::path const& file, int count) {
  std::ofstream out(file);
  for (int i = 0; i < count; ++i) {
    std::vector<int> ids, more;
    for (int k = 0; k < 2 + i * 7 % 23; ++k) ids.push_back(3 + (i + 5 * k) % 40);
    for (int k = 0; k < 1 + i % 4; ++k) more.push_back(4 + (i + k) % 30);
    nlohmann::json request{{"id", i}};
    if (i % 3 == 0)
      request.update({{"type", "loglikelihood"}, {"context_ids", ids}, {"continuation_ids", more}});
    if (i % 3 == 1) request.update({{"type", "loglikelihood_rolling"}, {"ids", ids}});
    if (i % 3 == 2)
      request.update({{"type", "generate_until"},
                      {"context_ids", ids},
                      {"max_tokens", 4 + i % 5},
                      {"temperature", i % 2},
                      {"seed", i}});
    out << request.dump() << "\n";
  }
}

TEST(Evaluate, RequestsHaveTheSameBitsOnAnyRanks) {
  TempDir dir;
  write_requests(dir / "in.jsonl", 50);
  std::string alone;
  for (int const np : {0, 1, 2, 3, 4}) {
    auto const out = dir / ("out" + std::to_string(np) + ".jsonl");
    auto const outcome = run(dir.path(), np,
                             {"fsllm_eval", "--model", reference_dir("llama").string(), "--batch_tokens",
                              "40", "--requests", (dir / "in.jsonl").string(), "--responses", out.string()});
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    auto const answers = read_text(out);
    EXPECT_EQ(std::count(answers.begin(), answers.end(), '\n'), 50);
    if (alone.empty()) alone = answers;
    EXPECT_TRUE(answers == alone) << np << " ranks";
  }
}

}  // namespace
}  // namespace fsllm::test
