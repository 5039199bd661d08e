// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/scoring.hpp"

#include <ATen/ops/log_softmax.h>

#include <map>
#include <numeric>

#include "fixture.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

std::vector<int32_t> narrowed(std::vector<int64_t> const& ids) {
  return {ids.begin(), ids.end()};
}

/// Log-probabilities of the last `targets` tokens from transformers' logits.
RowScore golden_score(Reference const& reference, size_t row, int64_t targets) {
  auto const log_probability =
      at::log_softmax(reference.golden.at("row" + std::to_string(row) + ".logits").to(at::kDouble), -1);
  auto const& ids = reference.rows[row];
  RowScore score;
  for (auto position = static_cast<int64_t>(ids.size()) - targets;
       position < static_cast<int64_t>(ids.size()); ++position) {
    auto const at_position = log_probability[position - 1];
    auto const id = ids[static_cast<size_t>(position)];
    score.loglikelihood += at_position[id].item<double>();
    score.is_greedy = score.is_greedy && at_position.argmax().item<int64_t>() == id;
  }
  return score;
}

class EveryFamilyScores : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Scoring, EveryFamilyScores, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryFamilyScores, LoglikelihoodsAgreeWithTransformersForAnyBatchSize) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  std::vector<ScoredRow> rows;
  std::vector<RowScore> golden;
  for (size_t row = 0; row < reference.rows.size(); ++row)
    for (int64_t const targets : {1, 3, static_cast<int>(reference.rows[row].size()) - 1}) {
      rows.push_back({narrowed(reference.rows[row]), targets});
      golden.push_back(golden_score(reference, row, targets));
    }
  for (int64_t const batch_tokens : {1, 20, 4096}) {
    auto const scores = score_rows(*model, rows, batch_tokens);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_NEAR(scores[i].loglikelihood, golden[i].loglikelihood, 1e-4) << i;
      EXPECT_EQ(scores[i].is_greedy, golden[i].is_greedy) << i;
    }
  }
}

/// Counts the tokens that go through its block.
struct TokenCounter final : BlockAdapter {
  int64_t tokens = 0;
  at::Tensor apply(at::Tensor const& x, Pass const&) override {
    tokens += x.size(0);
    return x;
  }
};

TEST_P(EveryFamilyScores, PrefixesInCommonAreComputedOnceAndChangeNothing) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  std::vector<int32_t> prefix(33);
  for (size_t i = 0; i < prefix.size(); ++i) prefix[i] = static_cast<int32_t>((7 * i + 11) % 96);
  std::vector<ScoredRow> rows;
  for (int32_t question = 0; question < 9; ++question) {
    auto ids = prefix;
    for (int32_t i = 0; i <= question % 4 + 1; ++i) ids.push_back((13 * question + 5 * i + 3) % 96);
    rows.push_back({ids, question % 2 + 1});
    rows.push_back({{ids.rbegin(), ids.rend()}, 3});
  }
  std::vector<RowScore> alone;
  for (auto const& row : rows) alone.push_back(score_rows(*model, {row}, 4096).front());
  auto const counter = std::make_shared<TokenCounter>();
  model->set_block_adapter(0, counter);
  for (int64_t const batch_tokens : {1, 20, 4096}) {
    counter->tokens = 0;
    auto const scores = score_rows(*model, rows, batch_tokens);
    for (size_t i = 0; i < rows.size(); ++i) {
      EXPECT_NEAR(scores[i].loglikelihood, alone[i].loglikelihood, 1e-5) << i;
      EXPECT_EQ(scores[i].is_greedy, alone[i].is_greedy) << i;
    }
    int64_t fed = 0;
    for (auto const& row : rows) fed += std::ssize(row.ids) - 1;
    EXPECT_TRUE(batch_tokens < 4096 || counter->tokens == fed - 8 * 33) << counter->tokens << " of " << fed;
  }
}

/// Shares and what is kept of an earlier call decide who computes a batch, and nothing else.
TEST(Scoring, SharesAreOfTheBatchesThatAreNotDone) {
  auto const model = load_model(load_reference("llama").dir);
  std::vector<ScoredRow> rows;
  for (int32_t i = 0; i < 23; ++i) rows.push_back({{i, 5, (7 * i) % 96, 9}, 2});
  std::map<int64_t, std::vector<RowScore>> batches;
  auto const all = score_rows(*model, rows, 9, {}, [&](BatchDone const& done, auto const& scores) {
    EXPECT_EQ(done.rows, std::ssize(scores));
    EXPECT_EQ(done.rows_over, done.rows);
    EXPECT_TRUE(batches.emplace(done.number, scores).second);
  });
  ASSERT_EQ(all.size(), rows.size());
  ASSERT_GT(batches.size(), 5U);
  for (int64_t const count : {1, 2, 4}) {
    std::map<int64_t, double> found;
    BatchShare share{0, count, {0, 2, 3}};
    for (auto const number : share.done)
      for (auto const& score : batches.at(number)) found[score.row] = score.loglikelihood;
    auto const kept = std::ssize(found);
    int64_t over = 0;
    for (share.index = 0; share.index < count; ++share.index)
      for (auto const &score : score_rows(*model, rows, 9, share, [&](BatchDone const&done, auto const&) {
             EXPECT_FALSE(share.done.contains(done.number));
             if (share.index == 0) over += done.rows_over;
           }))
        EXPECT_TRUE(found.emplace(score.row, score.loglikelihood).second) << score.row;
    EXPECT_EQ(over + kept, std::ssize(rows));
    for (auto const& score : all) EXPECT_EQ(found.at(score.row), score.loglikelihood);
  }
}

TEST(Scoring, GreedyTextIsGreedy) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto ids = narrowed(reference.rows[1]);
  ids.insert(ids.end(), reference.greedy[1].begin(), reference.greedy[1].end());
  auto other = ids;
  other.back() = (other.back() + 1) % 96;
  auto const scores = score_rows(*model, {{ids, 12}, {other, 12}, {other, 1}}, 4096);
  EXPECT_TRUE(scores[0].is_greedy);
  EXPECT_FALSE(scores[1].is_greedy);
  EXPECT_FALSE(scores[2].is_greedy);
  EXPECT_GT(scores[0].loglikelihood, scores[1].loglikelihood);
}

TEST(Scoring, LongRowsLoseTheirBeginning) {
  auto const model = load_model(load_reference("gpt2").dir);
  std::vector<int32_t> ids(60);
  std::iota(ids.begin(), ids.end(), 7);
  std::vector<int32_t> const kept(ids.end() - 41, ids.end());  // 40 positions: 40 tokens fed, one more scored
  auto const scores = score_rows(*model, {{ids, 5}, {kept, 5}}, 4096);
  EXPECT_EQ(scores[0].loglikelihood, scores[1].loglikelihood);
}

/// The example of lm-evaluation-harness' own test (tokens 0 .. 33, max_seq_len 10, context_len 1).
TEST(Scoring, RollingWindowsAreTheHarness) {
  std::vector<int32_t> tokens(34);
  std::iota(tokens.begin(), tokens.end(), 0);
  auto const range = [](int32_t first, int32_t last) {
    std::vector<int32_t> ids(static_cast<size_t>(last - first + 1));
    std::iota(ids.begin(), ids.end(), first);
    return ids;
  };
  auto first = range(0, 9);
  first.insert(first.begin(), 77);
  auto const rows = rolling_windows(tokens, 77, 10);
  ASSERT_EQ(rows.size(), 4U);
  EXPECT_EQ(rows[0].ids, first);
  EXPECT_EQ(rows[1].ids, range(9, 19));
  EXPECT_EQ(rows[2].ids, range(19, 29));
  EXPECT_EQ(rows[3].ids, range(23, 33));
  EXPECT_EQ(rows[2].targets, 10);
  EXPECT_EQ(rows[3].targets, 4);
  EXPECT_TRUE(rolling_windows({}, 77, 10).empty());
  EXPECT_EQ(rolling_windows({5}, 77, 10).at(0).ids, (std::vector<int32_t>{77, 5}));
}

}  // namespace
}  // namespace fsllm::test
