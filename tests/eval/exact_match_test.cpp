// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/exact_match.hpp"

#include <algorithm>

#include "character_tokenizer.hpp"
#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/scoring.hpp"
#include "fsllm/model/generate.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

/// A random model whose greedy answer to "What?" ends by itself: EOS is the token that comes fourth or later.
class ExactMatchRows : public testing::Test {
 protected:
  ExactMatchRows() : model_(load_model(load_reference("llama").dir)) {
    config_.name = "plain";
    row_.instruction = "What?";
    row_.place = "rows.jsonl:1";
    auto const prompt = tokenizer_.encode("What?", true);
    auto ids = generate(*model_, {{prompt, 24}}).front();
    auto end = ids.begin() + 3;
    while (std::find(ids.begin(), end, *end) != end) ++end;
    tokenizer_.eos = *end;
    row_.output = tokenizer_.decode({ids.begin(), end}, false);
  }
  RowAnswer answer(Sample const& row) { return answers({row}).front(); }
  std::vector<RowAnswer> answers(std::vector<Sample> const& rows) {
    return answer_rows(*model_, tokenizer_, rows, config_, 64);
  }
  Sample with_output(std::string const& output) const {
    auto row = row_;
    row.output = output;
    return row;
  }

  std::unique_ptr<CausalLM> model_;
  CharacterTokenizer tokenizer_;
  TemplateConfig config_;
  Sample row_;
};

TEST_F(ExactMatchRows, WhatTheModelSaysIsCompared) {
  auto const right = answer(row_);
  EXPECT_EQ(right.text, row_.output);
  EXPECT_TRUE(right.exact);
  auto const wrong = answer(with_output(row_.output + "x"));
  EXPECT_EQ(wrong.text, row_.output);
  EXPECT_FALSE(wrong.exact);
  EXPECT_FALSE(answer(with_output(row_.output.substr(0, 2))).exact);
}

TEST_F(ExactMatchRows, LossIsThatOfTheExpectedAnswerWithItsEnd) {
  auto const result = answer(with_output("xyz"));
  auto ids = tokenizer_.encode("What?xyz", true);
  ids.push_back(*tokenizer_.eos);
  auto const score = score_rows(*model_, {{ids, 4}}, 100).front();
  EXPECT_EQ(result.targets, 4);
  EXPECT_NEAR(result.loss_sum, -score.loglikelihood, 1e-4);
}

TEST_F(ExactMatchRows, RowsKeepTheirPlaces) {
  auto longer = row_;
  longer.instruction = "What else may there be to say?";
  auto const both = answers({row_, longer, with_output("xyz")});
  EXPECT_TRUE(both[0].exact);
  EXPECT_NEAR(both[1].loss_sum, answer(longer).loss_sum, 1e-4);
  EXPECT_EQ(both[2].targets, 4);
}

TEST_F(ExactMatchRows, SumsAreOverRowsAndTokens) {
  ExactMatch sum;
  EXPECT_EQ(sum.share(), 0);
  EXPECT_EQ(sum.loss(), 0);
  sum.add({"a", true, 1.5, 2});
  sum.add({"b", false, 4.5, 4});
  EXPECT_EQ(sum.share(), 0.5);
  EXPECT_EQ(sum.loss(), 1.0);
}

TEST_F(ExactMatchRows, RowsThatCannotBeComparedAreNamed) {
  EXPECT_ERROR(answer(with_output("two\nlines")), "rows.jsonl:1: an output of several lines");
  auto tokens = row_;
  tokens.kind = SampleKind::tokens;
  EXPECT_ERROR(answer(tokens), "rows.jsonl:1: a row of tokens");
  EXPECT_ERROR(answer(with_output(std::string(5000, 'x'))), "rows.jsonl:1: prompt and answer need 50");
}

}  // namespace
}  // namespace fsllm::test
