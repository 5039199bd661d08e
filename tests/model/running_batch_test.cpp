// SPDX-License-Identifier: Apache-2.0
#include "fsllm/model/running_batch.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using Ids = std::vector<int32_t>;

/// Prompts that share their first 24 tokens, one that is such a beginning itself, and one that shares
/// nothing.
std::vector<Ids> like_prompts(Reference const& reference) {
  Ids beginning;
  for (size_t row = 0; std::ssize(beginning) < 24; row = (row + 1) % reference.rows.size())
    beginning.insert(beginning.end(), reference.rows[row].begin(), reference.rows[row].end());
  beginning.resize(24);
  std::vector<Ids> prompts;
  for (int32_t more : {1, 0, 2, 3, 3}) {
    prompts.push_back(beginning);
    for (int32_t i = 0; i < more; ++i)
      prompts.back().push_back(5 + 7 * static_cast<int32_t>(prompts.size()) + i);
  }
  prompts.push_back({beginning.rbegin(), beginning.rend()});
  return prompts;
}

/// New ids of each row, and what was said of each.
struct Answers {
  std::map<int64_t, Ids> ids;
  std::map<int64_t, std::vector<double>> logprobs;
  void add(std::vector<NewTokenEvent> const& events) {
    for (auto const& event : events) {
      if (event.token) ids[event.row].push_back(*event.token);
      if (event.logprobs) logprobs[event.row].push_back(event.logprobs->logprob);
    }
  }
};

Answers run(RunningBatch& batch) {
  Answers answers;
  while (!batch.idle()) answers.add(batch.step());
  return answers;
}

class EveryFamilyRuns : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Model, EveryFamilyRuns, testing::ValuesIn(reference_names()),
                         [](auto const& test) { return test.param; });

TEST_P(EveryFamilyRuns, RowsThatBeginAlikeAreComputedOnceAndAnswerAsAlone) {
  auto const reference = load_reference(GetParam());
  auto const model = load_model(reference.dir);
  RunningBatch batch(*model, {.most_rows = 3});
  int64_t given = 0;
  std::vector<Answers> alone;
  for (auto const& prompt : like_prompts(reference)) {
    GenerateRow const row{.prompt = prompt, .max_tokens = 6, .top_logprobs = 0};
    given += std::ssize(prompt) + row.max_tokens - 1;
    RunningBatch one(*model, {});
    one.join(row);
    alone.push_back(run(one));
    batch.join(row);
  }
  auto const together = run(batch);
  for (size_t i = 0; i < alone.size(); ++i) {
    auto const row = static_cast<int64_t>(i);
    EXPECT_EQ(together.ids.at(row), alone[i].ids.at(0)) << i;
    for (size_t token = 0; token < alone[i].ids.at(0).size(); ++token)
      EXPECT_NEAR(together.logprobs.at(row)[token], alone[i].logprobs.at(0)[token], 1e-4) << i;
  }
  EXPECT_EQ(batch.tokens_fed(), given - 4 * 24 + 1) << "the last token of a prompt is always fed";
}

TEST(RunningBatch, RowsJoinAndLeaveBetweenPasses) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const row = [&](size_t i) {
    return GenerateRow{.prompt = {reference.rows[i].begin(), reference.rows[i].end()}, .max_tokens = 12};
  };
  RunningBatch batch(*model, {});
  batch.join(row(0));
  Answers answers;
  answers.add(batch.step());
  answers.add(batch.step());
  auto const gone = batch.join(row(1)), late = batch.join(row(2));
  answers.add(batch.step());
  batch.leave(gone);
  answers.add(batch.step());
  batch.leave(gone);
  while (!batch.idle()) answers.add(batch.step());
  EXPECT_EQ(answers.ids.at(0), reference.greedy[0]);
  EXPECT_EQ(answers.ids.at(late), reference.greedy[2]);
  EXPECT_EQ(answers.ids.at(gone), Ids(reference.greedy[1].begin(), reference.greedy[1].begin() + 1));
}

TEST(RunningBatch, EndsSayWhy) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  RunningBatch batch(*model, {.stop_ids = {reference.greedy[0][2]}});
  Ids const prompt{reference.rows[0].begin(), reference.rows[0].end()};
  batch.join({.prompt = prompt, .max_tokens = 12});
  batch.join({.prompt = prompt, .max_tokens = 1});
  batch.join({.prompt = prompt, .max_tokens = 0});
  std::map<int64_t, NewTokenEvent::End> ends;
  std::map<int64_t, bool> with_token;
  while (!batch.idle())
    for (auto const& event : batch.step()) {
      ends[event.row] = event.end;
      with_token[event.row] = event.token.has_value();
    }
  EXPECT_EQ(ends.at(0), NewTokenEvent::End::stop_id);
  EXPECT_FALSE(with_token.at(0));
  EXPECT_EQ(ends.at(1), NewTokenEvent::End::length);
  EXPECT_TRUE(with_token.at(1));
  EXPECT_EQ(ends.at(2), NewTokenEvent::End::length);
  EXPECT_FALSE(with_token.at(2));
}

TEST(RunningBatch, PromptsAndNewTokensHaveTheirLogprobs) {
  auto const reference = load_reference("qwen2");
  auto const model = load_model(reference.dir);
  for (int64_t const max_tokens : {0, 2}) {
    RunningBatch batch(*model, {});
    for (auto const& ids : reference.rows)
      batch.join({.prompt = {ids.begin(), ids.end()},
                  .max_tokens = max_tokens,
                  .top_logprobs = 3,
                  .prompt_logprobs = true});
    auto const events = batch.step();
    ASSERT_EQ(events.size(), reference.rows.size());
    for (auto const& event : events) {
      auto const& ids = reference.rows[static_cast<size_t>(event.row)];
      auto const expected = all_logits(*model, {ids}).to(at::kDouble).log_softmax(-1);
      ASSERT_EQ(event.prompt.size(), ids.size() - 1);
      for (size_t i = 0; i + 1 < ids.size(); ++i) {
        auto const place = expected[static_cast<int64_t>(i)];
        EXPECT_NEAR(event.prompt[i].logprob, place[ids[i + 1]].item<double>(), 1e-5);
        auto const [values, indices] = place.topk(3);
        for (int64_t k = 0; k < 3; ++k) {
          EXPECT_EQ(event.prompt[i].top[static_cast<size_t>(k)].first, indices[k].item<int64_t>());
          EXPECT_NEAR(event.prompt[i].top[static_cast<size_t>(k)].second, values[k].item<double>(), 1e-5);
        }
      }
      EXPECT_EQ(event.token.has_value(), max_tokens > 0);
      if (event.token) {
        auto const last = expected[std::ssize(ids) - 1];
        EXPECT_NEAR(event.logprobs->logprob, last[*event.token].item<double>(), 1e-5);
        EXPECT_EQ(event.logprobs->top.front().first, *event.token);
      }
    }
  }
}

TEST(Sampling, RepetitionPenaltyIsThatOfThePaper) {
  auto const reference = load_reference("gpt2");
  auto const model = load_model(reference.dir);
  constexpr double kPenalty = 1.7;
  std::vector<int64_t> ids = reference.rows[0];
  Ids expected;
  for (int step = 0; step < 10; ++step) {
    auto logits = all_logits(*model, {ids})[std::ssize(ids) - 1].to(at::kDouble).clone();
    for (auto const id : std::set<int64_t>(ids.begin(), ids.end())) {
      double const logit = logits[id].item<double>();
      logits[id] = logit > 0 ? logit / kPenalty : logit * kPenalty;
    }
    ids.push_back(logits.argmax().item<int64_t>());
    expected.push_back(static_cast<int32_t>(ids.back()));
  }
  Ids const prompt{reference.rows[0].begin(), reference.rows[0].end()};
  auto const answer =
      generate(*model, {{.prompt = prompt, .max_tokens = 10, .repetition_penalty = kPenalty}}).front();
  EXPECT_EQ(answer, expected);
  EXPECT_NE(answer, generate(*model, {{.prompt = prompt, .max_tokens = 10}}).front());
}

/// How often each token follows a prompt in 2000 draws, beside the model's probabilities.
void expect_draws(GenerateRow row, std::function<std::vector<double>(std::vector<double>)> const& rule) {
  auto const reference = load_reference("llama");
  auto const model = load_model(reference.dir);
  auto const logits = all_logits(*model, {reference.rows[1]})[4].to(at::kDouble);
  auto const all = logits.div(row.temperature).softmax(-1).contiguous();
  auto const expected = rule({all.const_data_ptr<double>(), all.const_data_ptr<double>() + all.numel()});
  row.prompt = {reference.rows[1].begin(), reference.rows[1].end()};
  row.max_tokens = 1;
  std::vector<GenerateRow> rows(2000, row);
  for (size_t i = 0; i < rows.size(); ++i) rows[i].seed = i;
  std::vector<int64_t> counts(expected.size());
  for (auto const& answer : generate(*model, rows)) ++counts[static_cast<size_t>(answer.at(0))];
  for (size_t id = 0; id < expected.size(); ++id) {
    double const p = expected[id], deviation = std::sqrt(2000 * p * (1 - p)) + 1;
    EXPECT_NEAR(static_cast<double>(counts[id]), 2000 * p, p == 0 ? 0 : 5 * deviation) << id;
  }
}

/// The probabilities of `kept` tokens, made to add up to 1.
std::vector<double> only(std::vector<double> p, std::function<bool(double)> const& kept) {
  double sum = 0;
  for (auto& value : p) sum += value = kept(value) ? value : 0;
  for (auto& value : p) value /= sum;
  return p;
}

TEST(Sampling, TopKDrawsAmongTheMostLikelyOnes) {
  expect_draws({.temperature = 1.5, .top_k = 7}, [](std::vector<double> const& p) {
    auto sorted = p;
    std::ranges::sort(sorted, std::greater{});
    return only(p, [&](double value) { return value >= sorted[6]; });
  });
}

TEST(Sampling, TopPDrawsAmongTheFewestThatReachIt) {
  expect_draws({.temperature = 1, .top_p = 0.4}, [](std::vector<double> const& p) {
    auto sorted = p;
    std::ranges::sort(sorted, std::greater{});
    double reached = 0, least = 1;
    for (auto const value : sorted) {
      least = value;
      if ((reached += value) >= 0.4) break;
    }
    return only(p, [&](double value) { return value >= least; });
  });
}

TEST(Sampling, ImpossibleNumbersAreNamed) {
  auto const model = load_model(load_reference("llama").dir);
  EXPECT_ERROR(generate(*model, {{.prompt = {4}, .top_k = -1}}), "top_k = -1");
  EXPECT_ERROR(generate(*model, {{.prompt = {4}, .top_p = 0}}), "top_p = 0 (a probability in (0, 1])");
  EXPECT_ERROR(generate(*model, {{.prompt = {4}, .top_p = 1.5}}), "top_p = 1.5");
  EXPECT_ERROR(generate(*model, {{.prompt = {4}, .repetition_penalty = 0}}), "repetition_penalty = 0");
}

}  // namespace
}  // namespace fsllm::test
