// SPDX-License-Identifier: Apache-2.0
// Tasks without a program: what is read, how answers are judged, and the numbers of the report.
#include "fsllm/eval/task.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "character_tokenizer.hpp"
#include "fixture.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/eval/csv.hpp"
#include "fsllm/eval/task_work.hpp"
#include "support.hpp"

namespace fsllm::test {
namespace {

using Fields = std::vector<std::string>;

ItemAnswer written(std::string const& text) {
  return {{}, {text}};
}

ItemAnswer scored(std::vector<double> const& loglikelihoods) {
  ItemAnswer answer;
  for (auto const value : loglikelihoods) answer.choices.push_back({value, false, 1});
  return answer;
}

Metric const& metric_of(std::vector<ReportRow> const& rows, std::string const& row, std::string const& key) {
  for (auto const& each : rows)
    for (auto const& metric : each.metrics)
      if (each.name == row && metric.kind.key() == key) return metric;
  throw std::out_of_range(row + " " + key);
}

TEST(Csv, QuotesHoldCommasLinesAndQuotes) {
  auto const records = parse_csv(
      "\xEF\xBB\xBF"
      "a,\"b,\n\"\"c\"\"\",\r\n\n,\"\"\nlast",
      "x.csv");
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].fields, (Fields{"a", "b,\n\"c\"", ""}));
  EXPECT_EQ(records[1].fields, (Fields{"", ""}));
  EXPECT_EQ(records[1].line, 4);
  EXPECT_EQ(records[2].fields, Fields{"last"});
  EXPECT_TRUE(parse_csv("", "x.csv").empty());
  EXPECT_ERROR(parse_csv("a\n\"b", "x.csv"), "x.csv:2: a quote that is never closed");
  EXPECT_ERROR(parse_csv("a,\"b\"c\n", "x.csv"), "x.csv:1: text behind a closing quote");
  EXPECT_ERROR(parse_csv("a,\xff", "x.csv"), "x.csv:1: broken UTF-8");
}

/// Wilson's interval of 8 of 10 (his formula by hand), and lm-evaluation-harness' pooled_sample_stderr.
TEST(TaskReport, IntervalsAndErrors) {
  Metric metric{{.name = "acc"}, 0.8};
  set_wilson(metric, 10);
  EXPECT_NEAR(*metric.low, 0.490156, 2e-6);
  EXPECT_NEAR(*metric.high, 0.943320, 2e-6);
  EXPECT_FALSE(mean_error({1}).has_value());
  EXPECT_NEAR(*mean_error({1, 0, 0, 1, 1}), std::sqrt(0.3 / 5), 1e-12);
  std::vector<TaskItem> items;
  std::vector<ItemScore> scores;
  for (int const value : {1, 0, 0, 1}) {
    items.push_back({.groups = {"t_a"}, .gold = value});
    scores.push_back({"", {static_cast<double>(value)}});
  }
  for (int const value : {1, 1, 0}) {
    items.push_back({.groups = {"t_b"}, .gold = 2});
    scores.push_back({"", {static_cast<double>(value)}});
  }
  auto const rows = mean_rows("t", {{.name = "acc", .is_choice = true}}, items, scores, true);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[1].alias, "a");
  auto const& acc = metric_of(rows, "t", "acc,none");
  EXPECT_DOUBLE_EQ(acc.value, 4.0 / 7);
  // Variances 1/3 of four and 1/3 of three: sqrt((3·(1/3)/4·4 + 2·(1/3)/3·3) / 5 / 7).
  EXPECT_NEAR(*acc.error, std::sqrt((1.0 + 2.0 / 3) / 5 / 7), 1e-12);
  EXPECT_DOUBLE_EQ(*acc.constant, 3.0 / 7);
  auto const& alike = metric_of(rows, "t", "acc_unweighted,none");
  EXPECT_DOUBLE_EQ(alike.value, (0.5 + 2.0 / 3) / 2);
  EXPECT_NEAR(*alike.error, std::sqrt(1.0 / 12 + 1.0 / 9) / 2, 1e-12);
}

/// Examples go from the front, and the choices' rows are context and choice.
TEST(TaskWork, PromptsFitTheModel) {
  struct Plain final : EvalTask {
    ItemScore score(size_t, ItemAnswer const&) const override { return {}; }
  } task;
  auto examples = std::make_shared<TaskExamples>();
  examples->heading = "H ";
  examples->shots = {"one ", "two ", "three "};
  task.items.push_back({.examples = examples, .question = "is it", .choices = {" yes", " no"}});
  task.items.push_back({.examples = examples, .question = "write", .writing = {.max_tokens = 4}});
  CharacterTokenizer tokenizer;
  tokenizer.bos = 1;
  ModelConfig config;
  config.max_positions = 20;
  TaskWork const work(task, config, tokenizer);
  EXPECT_EQ(work.rows(), 3);
  RequestResults results{{{0, -3, true}, {1, -1, false}}, {{0, 'a' - 32}, {0, 'c' - 32}}};
  auto const answers = work.answers(results);
  ASSERT_EQ(answers.size(), 2U);
  // "H three is it" has 13 tokens and " yes" adds three that are fed; with "two " they would be 20.
  EXPECT_EQ(answers[0].dropped_shots, 1);
  EXPECT_EQ(answers[0].choices[0].tokens, 4);
  EXPECT_EQ(answers[0].choices[1].loglikelihood, -1);
  EXPECT_EQ(answers[1].dropped_shots, 2);
  EXPECT_EQ(answers[1].texts, Fields{"ac"});
  EXPECT_FALSE(answers[1].is_cut);
  config.max_positions = 6;
  auto const cut = TaskWork(task, config, tokenizer).answers(results);
  EXPECT_TRUE(cut[1].is_cut);
  EXPECT_EQ(cut[1].dropped_shots, 3);
}

TEST(TaskNames, ListsAndFiles) {
  EXPECT_EQ(task_names("mmlu,data/own.jsonl,notes.txt"), (Fields{"mmlu", "data/own.jsonl", "notes.txt"}));
  EXPECT_ERROR(task_names("gsm8"), "--tasks = 'gsm8' (not a known name). Did you mean 'gsm8k'?");
  EXPECT_ERROR(task_names("a/x.jsonl,b/x.txt"), "x stands there twice");
}

/// FS-LLM's clean_answer on the cases that its two rules part on, and the strict rule beside it.
TEST(Gsm8k, AnswersByBothRules) {
  TempDir dir;
  std::filesystem::create_directories(dir / "gsm8k");
  std::ofstream(dir / "gsm8k/test.jsonl") << R"({"question": "How many?", "answer": "So 1.\n#### 1,234"})";
  auto const task = gsm8k_task({.data = dir.path()});
  EXPECT_EQ(task->shots, 8);
  EXPECT_EQ(task->items[0].target, "1234");
  EXPECT_TRUE(task->items[0].prompt().ends_with("The answer is 8.\n\nQ: How many?\nA:"));
  auto const judged = [&](std::string const& text) {
    auto const score = task->score(0, written(text));
    return score.prediction + (score.values[0] == 1 ? " right" : " wrong") +
           (score.values[1] == 1 ? " right" : " wrong");
  };
  EXPECT_EQ(judged(" 5 and 6. The answer is 1,234.\n\nQ: x\nA: The answer is 9."), "1234 right right");
  EXPECT_EQ(judged(" it is 7, so 1,234."), "1234 right wrong");
  EXPECT_EQ(judged(" the answer is about $1234, not 5"), "1234 right wrong");
  EXPECT_EQ(judged(" I give up\nQ: x\nA: The answer is 1234."), "1234 right wrong");
  EXPECT_EQ(judged(" So\n#### 1234"), "1234 right right");
  EXPECT_EQ(judged(" The answer is 1234.0"), "1234.0 wrong wrong");
  EXPECT_EQ(judged(" The answer is -1234"), "-1234 wrong wrong");
  EXPECT_EQ(judged(" none"), "[invalid] wrong wrong");
  EXPECT_ERROR(gsm8k_task({.data = dir.path(), .shots = 9}), "--shots 9 (gsm8k has 8 examples)");
}

/// The letters of all 14,042 questions: a constant D scores 27.95 by FlowerTune's average.
TEST(FlowerTune, ConstantAndFirstLetters) {
  FSLLM_NEED_TEST_DATA("datasets/mmlu");
  auto const task = flowertune_task({.data = test_data("datasets")});
  std::vector<ItemScore> scores;
  for (size_t i = 0; i < task->items.size(); ++i) {
    auto answer = scored({-4, -3, -2, -1});
    answer.texts = {"Answer"};
    scores.push_back(task->score(i, answer));
  }
  auto const rows = task->report(scores);
  auto const& restricted = metric_of(rows, task->name, "acc,none");
  EXPECT_NEAR(100 * restricted.value, 27.95, 0.005);
  EXPECT_DOUBLE_EQ(*restricted.constant, restricted.value);
  // "Answer" counts as the letter A: 21 %, which is no knowledge.
  double constant_a = 0;
  for (std::string const group : {"stem", "social_sciences", "humanities"})
    constant_a += metric_of(rows, task->name + "_" + group, "acc,first_letter").value / 3;
  EXPECT_DOUBLE_EQ(metric_of(rows, task->name, "acc,first_letter").value, constant_a);
  EXPECT_NEAR(100 * constant_a, 22.4, 1.5);
  auto const& item = task->items.front();
  EXPECT_TRUE(
      item.prompt().starts_with("<|im_start|>question\nAnswer the following multiple choice question."
                                "\nQuestion: Find the degree"));
  EXPECT_TRUE(item.prompt().ends_with("\nD. 6\nThe answer is:\n<|im_end|>\n<|im_start|>answer\n"));
}

TEST(Mmlu, AllQuestionsInTheirGroups) {
  FSLLM_NEED_TEST_DATA("datasets/mmlu");
  auto const task = mmlu_task({.data = test_data("datasets")});
  EXPECT_EQ(task->items.size(), 14042U);
  std::vector<ItemScore> scores;
  for (size_t i = 0; i < task->items.size(); ++i) scores.push_back(task->score(i, scored({-4, -3, -2, -1})));
  auto const rows = task->report(scores);
  EXPECT_EQ(rows.size(), 1U + 4 + 57);
  std::map<std::string, int64_t> sizes;
  for (auto const& row : rows) sizes[row.name] = row.items;
  EXPECT_EQ(sizes.at("mmlu_stem"), 3153);
  EXPECT_EQ(sizes.at("mmlu_humanities"), 4705);
  EXPECT_EQ(sizes.at("mmlu_social_sciences"), 3077);
  EXPECT_EQ(sizes.at("mmlu_other"), 3107);
  EXPECT_EQ(task->items.front().examples->shots.size(), 5U);
}

TEST(OwnTask, RowsOfThreeKinds) {
  TempDir dir;
  auto const make = [&](std::string const& lines) {
    std::ofstream(dir / "own.jsonl") << lines;
    return make_task("own.jsonl", {.data = dir.path()});
  };
  auto choice = make(R"({"question": "q", "choices": ["long one", "b"], "answer": "B", "category": "c"})");
  EXPECT_EQ(choice->name, "own");
  EXPECT_EQ(choice->items[0].groups, Fields{"own_c"});
  EXPECT_EQ(choice->items[0].choices, (Fields{" long one", " b"}));
  EXPECT_EQ(choice->score(0, scored({-16, -1})).values, (std::vector<double>{1, 1}));
  EXPECT_EQ(choice->score(0, scored({-4, -1})).values, (std::vector<double>{1, 0}));  // -4 / 8 > -1 / 1
  auto writing = make(R"({"prompt": "p", "targets": ["The cat", "dog"], "regex": "c[aeu]t", "until": "\n"})");
  EXPECT_EQ(writing->items[0].writing.stops, Fields{"\n"});
  EXPECT_EQ(writing->score(0, written(" dog ")).values, (std::vector<double>{1, 1, 0}));
  EXPECT_EQ(writing->score(0, written("a cut. cat")).values, (std::vector<double>{0, 2.0 / 3, 1}));
  auto text = make(R"({"text": "two  words"})");
  ItemAnswer answer;
  answer.choices.push_back({-6, false, 3});
  auto const report = text->report({text->score(0, answer)});
  EXPECT_DOUBLE_EQ(metric_of(report, "own", "word_perplexity,none").value, std::exp(3));
  EXPECT_DOUBLE_EQ(metric_of(report, "own", "byte_perplexity,none").value, std::exp(0.6));
  EXPECT_DOUBLE_EQ(metric_of(report, "own", "token_perplexity,none").value, std::exp(2));
  EXPECT_DOUBLE_EQ(metric_of(report, "own", "bits_per_byte,none").value, 0.6 / std::log(2));
  EXPECT_ERROR(make(R"({"question": "q", "choices": ["a"], "answer": 0})"), "own.jsonl:1: 'choices' has one");
  EXPECT_ERROR(make(R"({"question": "q", "choices": ["a", "b"], "answer": 2})"), "'answer' = 2 (a number");
  EXPECT_ERROR(make(R"({"question": "q", "choices": ["a", "b"]})"), "'answer' is missing");
  EXPECT_ERROR(make(R"({"prompt": "q", "targets": [1]})"), "'targets' holds 1 (texts");
  EXPECT_ERROR(make(R"({"prompt": "q", "targets": "a", "regex": "("})"), "own.jsonl:1: regex = ");
  EXPECT_ERROR(make(R"({"question": "q"})"), "the first row has none of 'choices', 'targets' and 'text'");
}

/// ROUGE-L by hand: the longest common subsequence of "the cat sat" and "a cat that sat" is "cat sat".
TEST(Dolly, RougeOfAnswersByCategory) {
  TempDir dir;
  std::filesystem::create_directories(dir / "dolly");
  std::ofstream(dir / "dolly/test.jsonl")
      << R"({"instruction": "Who sat?", "context": "", "response": "The cat sat.", "category": "open_qa"})"
      << "\n"
      << R"({"instruction": "Who?", "context": "A cat.", "response": "It.", "category": "closed_qa"})"
      << "\n";
  TemplateConfig plain;
  plain.name = "plain";
  auto const task = dolly_task({.data = dir.path(), .prompt = make_prompt_template(plain)});
  EXPECT_THAT(task->items[1].question, testing::HasSubstr("A cat."));
  EXPECT_NEAR(task->score(0, written(" a CAT that sat\n")).values[0], 2 * (2.0 / 4) * (2.0 / 3) / (7.0 / 6),
              1e-12);
  EXPECT_EQ(task->score(1, written("")).values[0], 0);
  auto const rows = task->report({{"", {0.5}}, {"", {0.25}}});
  EXPECT_DOUBLE_EQ(metric_of(rows, "dolly", "rougeL,none").value, 0.375);
  EXPECT_DOUBLE_EQ(metric_of(rows, "dolly_closed_qa", "rougeL,none").value, 0.25);
}

TEST(CodeSearch, PromptsAreThoseOfFsLlm) {
  TempDir dir;
  std::ofstream(dir / "cosqa-dev.json") << R"([{"idx": "d", "doc": "add", "code": "a+b", "label": 1}])";
  std::ofstream(dir / "csn_test.jsonl")
      << R"({"instruction": "add", "input": "a+b", "output": 0, "category": "go"})"
      << "\n"
      << R"({"instruction": ")" << std::string(900, 'x')
      << R"(", "input": "a+b", "output": "1", "category": "java"})";
  EXPECT_ERROR(cosqa_task({.data = dir.path()}), "no " + (dir / "cosqa-train.json").string());
  nlohmann::json train;
  for (auto const* id : {"18", "4", "7", "2", "0", "9"})
    train.push_back({{"idx", std::string("cosqa-train-") + id}, {"doc", id}, {"code", "c"}, {"label", 0}});
  std::ofstream(dir / "cosqa-train.json") << train.dump();
  auto const cosqa = cosqa_task({.data = dir.path(), .shots = 2});
  EXPECT_EQ(cosqa->items[0].prompt(),
            "Input: a piece of code and a document\nOutput: 0 or 1 score indicating the degree of matching "
            "between the code and the document, with 0 indicating a mismatch and 1 indicating a match.\n\n"
            "Document: 0\nCode: c\nScore: 0\n\nDocument: 9\nCode: c\nScore: 0\n\n"
            "Document:python add\nCode: a+b\nScore: ");
  EXPECT_EQ(cosqa->score(0, scored({-2, -1})).values[0], 1);
  auto const net = code_search_net_task({.data = dir.path()});
  EXPECT_EQ(net->items[0].groups, Fields{"code_search_net_go"});
  EXPECT_EQ(net->items[0].examples->shots.size(), 5U);
  EXPECT_LT(net->items[1].examples->shots.size(), 5U);
  EXPECT_EQ(net->score(1, scored({-1, -1})).values[0], 0);  // the first of equals
}

}  // namespace
}  // namespace fsllm::test
