// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/eval/task_report.hpp"
#include "fsllm/text/template.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// What stands before a question: a heading and worked examples, of which the first ones are dropped where a
/// prompt is too long for the model.
struct TaskExamples {
  std::string heading;
  std::vector<std::string> shots;
};

/// A text that the model writes.
struct Writing {
  int64_t max_tokens = 0;  ///< 0: nothing is written
  std::string as_long_as;  ///< as many tokens as this text has, instead
  std::vector<std::string> stops;
  double temperature = 0;  ///< 0 is greedy
  int64_t top_k = 0;       ///< as GenerateRow's, as the next
  double top_p = 1;
  int64_t samples = 1;
  bool is_wanted() const { return max_tokens > 0 || !as_long_as.empty(); }
};

/// One question: texts that are scored behind the prompt, a document that is scored whole, a text to write,
/// or several of these.
struct TaskItem {
  std::vector<std::string> groups;  ///< rows of the report that it counts in, outermost first; may be empty
  std::shared_ptr<TaskExamples const> examples;  ///< null: none
  std::string question;                          ///< end of the prompt
  bool has_specials = false;                     ///< the prompt writes BOS and other special tokens itself
  std::string target;                            ///< the right answer, as samples show it
  int64_t gold = -1;                             ///< number of the right choice
  std::vector<std::string> choices;
  std::string document;
  Writing writing;
  /// The whole prompt without the first `dropped` examples.
  std::string prompt(size_t dropped = 0) const;
};

/// What the model said to one item.
struct ItemAnswer {
  struct Choice {
    double loglikelihood = 0;
    bool is_greedy = false;  ///< every token was the most likely one
    int64_t tokens = 0;
  };
  std::vector<Choice> choices;  ///< as TaskItem::choices; behind them the document, if there is one
  std::vector<std::string> texts;
  int64_t dropped_shots = 0;
  bool is_cut = false;  ///< the prompt lost its beginning even without examples
};

/// A task with its items. A new one is a file, a row in task_table() and a test.
struct EvalTask {
  virtual ~EvalTask() = default;
  /// Values in the order of `metrics`, and what the answer was taken for.
  virtual ItemScore score(size_t item, ItemAnswer const& answer) const = 0;
  /// Why this machine cannot judge answers; "" where it can.
  virtual std::string cannot_judge() const { return ""; }
  /// Answers in the form of the task's own tools, written as NAME_answers.jsonl; "" for none.
  virtual std::string answer_lines(std::vector<ItemAnswer> const&) const { return ""; }
  /// Rows of the report, the whole task first. By default each metric is a mean over items.
  virtual std::vector<ReportRow> report(std::vector<ItemScore> const& scores) const;

  std::string name;
  int64_t version = 1;
  int64_t shots = 0;  ///< examples before each question
  std::vector<MetricKind> metrics;
  std::vector<TaskItem> items;
  std::string about;  ///< prompt, scorer and source in a sentence, for results.json
};

struct TaskOptions {
  std::filesystem::path data;            ///< folder that holds mmlu/, gsm8k/, ...
  int64_t limit = 0;                     ///< items (MMLU: of each subject); 0: all
  std::optional<int64_t> shots;          ///< the task's own number where empty
  PromptTemplate prompt;                 ///< for tasks that ask instructions
  Tokenizer const* tokenizer = nullptr;  ///< where `prompt` is a chat template
  std::string shots_option = "--shots";  ///< in messages
};

/// First items of each group, as lm-evaluation-harness' --limit counts.
size_t limited(size_t items, TaskOptions const& options);
/// `asked` or the task's own number of examples; more than there are is an Error.
int64_t shots_of(TaskOptions const& options, std::string const& task, int64_t own, int64_t available);

struct TaskKind {
  std::unique_ptr<EvalTask> (*make)(TaskOptions const&);
  bool asks_instructions = false;  ///< by TaskOptions::prompt
};
std::vector<Row<TaskKind>> const& task_table();
/// Does one of these tasks need a prompt template?
bool ask_instructions(std::vector<std::string> const& names);

/// The tasks of a list "mmlu,gsm8k,my_questions.jsonl": names of the table, and files of the user's own
/// (own_task). Unknown names are Errors with the nearest one.
std::vector<std::string> task_names(std::string const& list, std::string const& option = "--tasks");
/// A task's name in results: a file's without folder and extension.
std::string task_label(std::string const& name);
std::unique_ptr<EvalTask> make_task(std::string const& name, TaskOptions const& options);

/// What a file of the user's own holds, by its first row: multiple choice (choices), texts to write
/// (targets), documents (text, or a .txt file).
enum class OwnKind { choice, writing, document, unknown };
bool is_own_task(std::string const& name);
/// Where it lies: as it is named, else below `data`.
std::filesystem::path own_task_file(std::string const& name, std::filesystem::path const& data);
OwnKind own_task_kind(std::filesystem::path const& file);
std::unique_ptr<EvalTask> own_task(std::string const& name, TaskOptions const& options);

std::unique_ptr<EvalTask> mmlu_task(TaskOptions const& options);
std::unique_ptr<EvalTask> flowertune_task(TaskOptions const& options);
std::unique_ptr<EvalTask> gsm8k_task(TaskOptions const& options);
std::unique_ptr<EvalTask> lambada_task(TaskOptions const& options);
std::unique_ptr<EvalTask> humaneval_task(TaskOptions const& options);
std::unique_ptr<EvalTask> dolly_task(TaskOptions const& options);
std::unique_ptr<EvalTask> code_search_net_task(TaskOptions const& options);
std::unique_ptr<EvalTask> cosqa_task(TaskOptions const& options);

}  // namespace fsllm
