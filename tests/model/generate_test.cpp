// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/generate.hpp"

#include <set>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

std::vector<GenerateRow> rows_of(Reference const& reference, GenerateRow const& like) {
  std::vector<GenerateRow> rows;
  for (auto const& ids : reference.rows) {
    rows.push_back(like);
    rows.back().prompt.assign(ids.begin(), ids.end());
  }
  return rows;
}

class EveryFamilyGenerates : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Model, EveryFamilyGenerates, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryFamilyGenerates, GreedyEqualsTransformers) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  EXPECT_EQ(generate(*model, rows_of(reference, {.prompt = {}, .max_tokens = 12})), reference.greedy);
}

TEST(Generate, EachRowHasItsOwnLimit) {
  auto const reference = load_reference("qwen2");
  auto const model = load_model(reference.dir);
  auto rows = rows_of(reference, {.prompt = {}, .max_tokens = 12});
  rows[0].max_tokens = 0;
  rows[1].max_tokens = 3;
  auto const answers = generate(*model, rows);
  EXPECT_TRUE(answers[0].empty());
  EXPECT_EQ(answers[1], std::vector<int32_t>(reference.greedy[1].begin(), reference.greedy[1].begin() + 3));
  EXPECT_EQ(answers[2], reference.greedy[2]);
}

TEST(Generate, StopIdsAndStopCallbackEndARow) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const& golden = reference.greedy[0];  // 68, 85, 90, ...
  GenerateOptions options;
  options.stop_ids = {golden[2]};
  auto const before = generate(*model, rows_of(reference, {.prompt = {}, .max_tokens = 12}), options);
  EXPECT_EQ(before[0], std::vector<int32_t>(golden.begin(), golden.begin() + 2));
  options.stop_ids.clear();
  options.stop = [](int64_t row, std::vector<int32_t> const& ids) { return row == 0 && ids.size() == 5; };
  auto const after = generate(*model, rows_of(reference, {.prompt = {}, .max_tokens = 12}), options);
  EXPECT_EQ(after[0], std::vector<int32_t>(golden.begin(), golden.begin() + 5));
  EXPECT_EQ(after[1], reference.greedy[1]);
}

TEST(Generate, SamplingDependsOnTheSeedAlone) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const hot = rows_of(reference, {.prompt = {}, .max_tokens = 12, .temperature = 2, .seed = 5});
  auto const together = generate(*model, hot);
  EXPECT_EQ(generate(*model, {hot[1]}).front(), together[1]) << "another batch, another text";
  auto other = hot;
  for (auto& row : other) row.seed = 6;
  EXPECT_NE(generate(*model, other), together);
  auto cold = hot;
  for (auto& row : cold) row.temperature = 1e-4;
  EXPECT_EQ(generate(*model, cold), reference.greedy);
}

TEST(Generate, SamplesFollowTheDistribution) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const logits = all_logits(*model, {reference.rows[1]})[4].to(at::kDouble);
  auto const probability = logits.softmax(-1);
  std::vector<GenerateRow> rows;
  for (uint64_t seed = 0; seed < 2000; ++seed)
    rows.push_back({.prompt = {reference.rows[1].begin(), reference.rows[1].end()},
                    .max_tokens = 1,
                    .temperature = 1,
                    .seed = seed});
  std::vector<int64_t> counts(96);
  for (auto const& answer : generate(*model, rows)) ++counts[static_cast<size_t>(answer.at(0))];
  for (int64_t id = 0; id < 96; ++id) {
    double const p = probability[id].item<double>();
    double const deviation = std::sqrt(2000 * p * (1 - p)) + 1;  // five deviations: fails once in 10^4 seeds
    EXPECT_NEAR(static_cast<double>(counts[static_cast<size_t>(id)]), 2000 * p, 5 * deviation) << id;
  }
}

TEST(Generate, BadRowsAreNamed) {
  auto const model = load_model(load_reference("llama").dir);
  EXPECT_ERROR(generate(*model, {{.prompt = {}}}), "an empty prompt");
  EXPECT_ERROR(generate(*model, {{.prompt = std::vector<int32_t>(60, 4), .max_tokens = 5}}),
               "a prompt of 60 tokens with max_tokens = 5 (the model has 64 positions)");
  EXPECT_ERROR(generate(*model, {{.prompt = {4}, .temperature = -1}}), "temperature = -1");
}

}  // namespace
}  // namespace fsllm::test
