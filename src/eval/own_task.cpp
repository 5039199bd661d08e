// SPDX-License-Identifier: Apache-2.0
// The user's own questions: rows of a .json or .jsonl file with choices, with targets, or with text; or a
// plain text file.
#include <algorithm>

#include "choice.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/python_regex.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/task.hpp"
#include "fsllm/io/files.hpp"
#include "perplexity.hpp"
#include "rows.hpp"
#include "text_scores.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using detail::TaskRow;

std::vector<std::string> groups_of(TaskRow const& row, std::string const& task) {
  return row.has("category") ? std::vector{task + "_" + row.text("category")} : std::vector<std::string>();
}

/// question, choices, answer (a number from 0, a letter A, B, ..., or the choice itself).
struct OwnChoice final : EvalTask {
  OwnChoice(std::string const& name_, fs::path const& file, TaskOptions const& options) {
    name = name_;
    about = "choices scored behind question and a blank: acc by log-likelihood, acc_norm by that a character";
    metrics = {{.name = "acc", .is_choice = true}, {.name = "acc_norm", .is_choice = true}};
    detail::for_each_row(file, options.limit, [&](TaskRow const& row) {
      TaskItem item{.groups = groups_of(row, name)};
      item.question = row.text("question");
      auto const choices = row.texts("choices");
      if (choices.size() < 2) row.refuse("'choices' has one choice. Give two or more.");
      for (auto const& choice : choices) {
        if (choice.empty()) row.refuse("'choices' holds an empty text. Fill it.");
        item.choices.push_back(" " + choice);
      }
      item.gold = answer_of(row, choices);
      item.target = choices[static_cast<size_t>(item.gold)];
      items.push_back(std::move(item));
    });
  }
  static int64_t answer_of(TaskRow const& row, std::vector<std::string> const& choices) {
    auto const count = static_cast<int64_t>(choices.size());
    if (!row.has("answer")) row.refuse("'answer' is missing. Add it.");
    auto const& answer = row.json.at("answer");
    int64_t number = -1;
    if (answer.is_number_integer()) {
      number = answer.get<int64_t>();
    } else if (answer.is_string()) {
      auto const text = answer.get<std::string>();
      auto const found = std::ranges::find(choices, text);
      if (found != choices.end())
        number = found - choices.begin();
      else if (text.size() == 1)
        number = text[0] - 'A';
    }
    if (number < 0 || number >= count)
      row.refuse(
          fmt::format("'answer' = {:.60} (a number from 0 to {}, a letter, or one of the choices). "
                      "Correct it.",
                      answer.dump(), count - 1));
    return number;
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const& choices = items[item].choices;
    std::vector<std::string> bare;
    for (auto const& choice : choices) bare.push_back(choice.substr(1));
    auto const chosen = detail::likeliest(answer), normed = detail::likeliest_a_character(answer, bare);
    auto const gold = static_cast<size_t>(items[item].gold);
    return {bare[chosen], {chosen == gold ? 1.0 : 0.0, normed == gold ? 1.0 : 0.0}};
  }
};

/// prompt, targets (any of them is right); regex, until, max_tokens where wanted.
struct OwnWriting final : EvalTask {
  OwnWriting(std::string const& name_, fs::path const& file, TaskOptions const& options) {
    name = name_;
    about =
        "greedy text behind the prompt: exact_match letter by letter without blanks around it, f1 of words "
        "as "
        "SQuAD has it, regex where a row's pattern is found in the text (rows without one: exact_match)";
    metrics = {{.name = "exact_match"}, {.name = "f1", .is_share = false}, {.name = "regex"}};
    detail::for_each_row(file, options.limit, [&](TaskRow const& row) {
      TaskItem item{.groups = groups_of(row, name)};
      item.question = row.text("prompt");
      targets_.push_back(row.texts("targets"));
      item.target = targets_.back().front();
      item.writing.max_tokens = row.integer("max_tokens", 256);
      if (item.writing.max_tokens == 0) row.refuse("'max_tokens' = 0 (nothing would be written). Raise it.");
      if (row.has("until")) item.writing.stops = row.texts("until");
      patterns_.emplace_back();
      // re.search: what stands before the match is the pattern's own business.
      if (row.has("regex"))
        patterns_.back().emplace("[\\s\\S]*?(?:" + row.text("regex") + ")", row.place + ": regex");
      items.push_back(std::move(item));
    });
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const& text = answer.texts.front();
    auto const written = detail::trimmed(text);
    double exact = 0, f1 = 0;
    for (auto const& target : targets_[item]) {
      exact = std::max(exact, written == detail::trimmed(target) ? 1.0 : 0.0);
      f1 = std::max(f1, detail::squad_f1(written, target));
    }
    auto const& pattern = patterns_[item];
    return {written, {exact, f1, pattern ? (pattern->match(text) ? 1.0 : 0.0) : exact}};
  }

 private:
  std::vector<std::vector<std::string>> targets_;
  std::vector<std::optional<PythonRegex>> patterns_;
};

std::unique_ptr<EvalTask> documents_task(std::string const& name, fs::path const& file,
                                         TaskOptions const& options) {
  std::vector<std::string> documents;
  if (file.extension() == ".txt") {
    auto text = read_file(file);
    std::string buffer;
    FSLLM_CHECK(!text.empty() && valid_utf8(text, buffer).data() == text.data(),
                "{} is {} (a document of UTF-8 text is needed). Correct it.", file.string(),
                text.empty() ? "empty" : "not UTF-8");
    documents.push_back(std::move(text));
  } else {
    detail::for_each_row(file, options.limit, [&](TaskRow const& row) {
      documents.push_back(row.text("text"));
      if (documents.back().empty()) row.refuse("'text' is empty. Fill it, or remove the row.");
    });
  }
  return detail::perplexity_task(name, std::move(documents));
}

}  // namespace

bool is_own_task(std::string const& name) {
  auto const extension = fs::path(name).extension();
  return extension == ".jsonl" || extension == ".json" || extension == ".txt";
}

fs::path own_task_file(std::string const& name, fs::path const& data) {
  return fs::path(name).is_absolute() || fs::exists(name) ? fs::path(name) : data / name;
}

OwnKind own_task_kind(fs::path const& file) {
  if (file.extension() == ".txt") return OwnKind::document;
  OwnKind kind = OwnKind::unknown;
  bool first = true;
  detail::for_each_row(file, 1, [&](TaskRow const& row) {
    if (!first) return;
    first = false;
    if (row.has("choices"))
      kind = OwnKind::choice;
    else if (row.has("targets"))
      kind = OwnKind::writing;
    else if (row.has("text") && !row.has("instruction"))
      kind = OwnKind::document;
  });
  return kind;
}

std::unique_ptr<EvalTask> own_task(std::string const& name, TaskOptions const& options) {
  auto const file = own_task_file(name, options.data);
  auto const stem = fs::path(name).stem().string();
  shots_of(options, stem, 0, 0);
  switch (own_task_kind(file)) {
    case OwnKind::choice:
      return std::make_unique<OwnChoice>(stem, file, options);
    case OwnKind::writing:
      return std::make_unique<OwnWriting>(stem, file, options);
    case OwnKind::document:
      return documents_task(stem, file, options);
    case OwnKind::unknown:
      break;
  }
  fail(fmt::format(
      "{}: the first row has none of 'choices', 'targets' and 'text' (rows are questions with choices and "
      "answer, prompts with targets, or texts). Name the fields so.",
      file.string()));
}

}  // namespace fsllm
