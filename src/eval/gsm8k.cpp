// SPDX-License-Identifier: Apache-2.0
// GSM8K (Cobbe et al. 2021) as FS-LLM asks it (llm/eval/eval_for_gsm8k/eval.py): the eight worked examples of
// Wei et al. 2022 (chain-of-thought prompting, table 20), greedy text of 256 tokens. FS-LLM shuffles them
// anew for each question; here they stand in the paper's order.
#include <algorithm>
#include <cctype>
#include <regex>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/task.hpp"
#include "rows.hpp"

namespace fsllm {
namespace {

struct Example {
  char const *question, *chain, *answer;
};

constexpr Example kExamples[] = {
    {"There are 15 trees in the grove. Grove workers will plant trees in the grove today. After they are "
     "done, there will be 21 trees. How many trees did the grove workers plant today?",
     "There are 15 trees originally. Then there were 21 trees after some more were planted. So there must "
     "have been 21 - 15 = 6.",
     "6"},
    {"If there are 3 cars in the parking lot and 2 more cars arrive, how many cars are in the parking lot?",
     "There are originally 3 cars. 2 more cars arrive. 3 + 2 = 5.", "5"},
    {"Leah had 32 chocolates and her sister had 42. If they ate 35, how many pieces do they have left in "
     "total?",
     "Originally, Leah had 32 chocolates. Her sister had 42. So in total they had 32 + 42 = 74. After eating "
     "35, they had 74 - 35 = 39.",
     "39"},
    {"Jason had 20 lollipops. He gave Denny some lollipops. Now Jason has 12 lollipops. How many lollipops "
     "did Jason give to Denny?",
     "Jason started with 20 lollipops. Then he had 12 after giving some to Denny. So he gave Denny 20 - 12 = "
     "8.",
     "8"},
    {"Shawn has five toys. For Christmas, he got two toys each from his mom and dad. How many toys does he "
     "have now?",
     "Shawn started with 5 toys. If he got 2 toys each from his mom and dad, then that is 4 more toys. 5 + 4 "
     "= 9.",
     "9"},
    {"There were nine computers in the server room. Five more computers were installed each day, from monday "
     "to thursday. How many computers are now in the server room?",
     "There were originally 9 computers. For each of 4 days, 5 more computers were added. So 5 * 4 = 20 "
     "computers were added. 9 + 20 is 29.",
     "29"},
    {"Michael had 58 golf balls. On tuesday, he lost 23 golf balls. On wednesday, he lost 2 more. How many "
     "golf balls did he have at the end of wednesday?",
     "Michael started with 58 golf balls. After losing 23 on tuesday, he had 58 - 23 = 35. After losing 2 "
     "more, he had 35 - 2 = 33 golf balls.",
     "33"},
    {"Olivia has $23. She bought five bagels for $3 each. How much money does she have left?",
     "Olivia had 23 dollars. 5 bagels for 3 dollars each will be 5 x 3 = 15 dollars. So she has 23 - 15 "
     "dollars left. 23 - 15 is 8.",
     "8"}};

constexpr char const* kTrigger = "the answer is";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

/// All matches of -?\d+\.?\d*, a full stop at the end taken off.
std::vector<std::string> numbers_in(std::string const& text) {
  std::vector<std::string> numbers;
  for (size_t at = 0; at < text.size();) {
    size_t end = at + (text[at] == '-' ? 1 : 0);
    if (end >= text.size() || !is_digit(text[end])) {
      ++at;
      continue;
    }
    while (end < text.size() && is_digit(text[end])) ++end;
    if (end < text.size() && text[end] == '.') ++end;
    while (end < text.size() && is_digit(text[end])) ++end;
    numbers.push_back(text.substr(at, end - at));
    if (numbers.back().back() == '.') numbers.back().pop_back();
    at = end;
  }
  return numbers;
}

/// FS-LLM's clean_answer: the first number between the first and the second "the answer is", else the last
/// number of the whole text.
std::string fs_llm_answer(std::string const& written) {
  auto text = lower_case(written);
  auto const trigger = text.find(kTrigger);
  bool const found = trigger != std::string::npos;
  if (found) {
    text.erase(0, trigger + std::string_view(kTrigger).size());
    text.resize(std::min(text.size(), text.find(kTrigger)));
  }
  auto const numbers = numbers_in(replace_all(text, ",", ""));
  if (numbers.empty()) return "[invalid]";
  return found ? numbers.front() : numbers.back();
}

/// The number that stands right behind `mark` (and blanks, and a dollar sign): as GSM8K's own
/// "#### (\-?[0-9\.\,]+)", commas and a full stop at the end taken off. "" where there is none.
std::string number_behind(std::string const& text, std::string_view mark) {
  auto at = text.find(mark);
  if (at == std::string::npos) return "";
  at += mark.size();
  while (at < text.size() && (text[at] == ' ' || text[at] == '$' || text[at] == ':')) ++at;
  auto end = at + (at < text.size() && text[at] == '-' ? 1 : 0);
  while (end < text.size() && (is_digit(text[end]) || text[end] == '.' || text[end] == ',')) ++end;
  auto number = replace_all(text.substr(at, end - at), ",", "");
  if (number.ends_with('.')) number.pop_back();
  return number;
}

/// The number that the answer to this question itself, not to one that the model went on to ask, marks as
/// its result.
std::string strict_answer(std::string const& written) {
  auto const text = lower_case(written.substr(0, written.find("\nQ:")));
  auto const marked = number_behind(text, "####");
  return marked.empty() ? number_behind(text, kTrigger) : marked;
}

/// What lm-evaluation-harness reads of the text before the next question: the first match of gsm8k_cot's
/// "strict-match", or the last of its "flexible-extract"; of several groups the first one that is filled.
std::string harness_answer(std::string const& written, bool strict) {
  static std::regex const marked(R"(The answer is (-?[0-9.,]+).)"), number(R"((-?[$0-9.,]{2,})|(-?[0-9]+))");
  auto const text = written.substr(0, written.find("Q:"));
  std::string found = "[invalid]";
  for (std::sregex_iterator match(text.begin(), text.end(), strict ? marked : number), end; match != end;
       ++match) {
    found = (*match)[1].length() > 0 ? (*match)[1].str() : (*match)[2].str();
    if (strict) break;
  }
  return found;
}

/// As its exact_match compares two of them: without commas, dollar signs and a full stop at the end.
std::string plain_number(std::string const& answer) {
  auto number = replace_all(replace_all(answer, ",", ""), "$", "");
  if (number.ends_with('.')) number.pop_back();
  return number;
}

struct Gsm8k final : EvalTask {
  explicit Gsm8k(TaskOptions const& options) {
    name = "gsm8k";
    about =
        "FS-LLM's eight worked examples, greedy text of 256 tokens; fs-llm reads the answer by FS-LLM's "
        "rule, "
        "strict takes the number behind '####' or 'The answer is' alone; strict-match and flexible-extract "
        "are those of lm-evaluation-harness' gsm8k_cot";
    for (auto const* filter : {"fs-llm", "strict", "strict-match", "flexible-extract"})
      metrics.push_back({.name = "exact_match", .filter = filter});
    shots = shots_of(options, name, 8, std::size(kExamples));
    auto examples = std::make_shared<TaskExamples>();
    for (size_t i = 0; i < static_cast<size_t>(shots); ++i)
      examples->shots.push_back(fmt::format("Q: {}\nA: {} The answer is {}.\n\n", kExamples[i].question,
                                            kExamples[i].chain, kExamples[i].answer));
    detail::for_each_row(options.data / "gsm8k/test.jsonl", options.limit, [&](detail::TaskRow const& row) {
      TaskItem item{.examples = examples};
      item.question = "Q: " + row.text("question") + "\nA:";
      item.target = number_behind(row.text("answer"), "####");
      FSLLM_CHECK(!item.target.empty(), "{}: 'answer' holds no '#### number' (it is the result). Correct it.",
                  row.place);
      item.writing.max_tokens = 256;
      items.push_back(std::move(item));
    });
  }

  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const& written = answer.texts.front();
    auto const& target = items[item].target;
    auto const loose = fs_llm_answer(written);
    auto const is_right = [&](std::string const& found) { return found == target ? 1.0 : 0.0; };
    return {loose,
            {is_right(loose), is_right(strict_answer(written)),
             is_right(plain_number(harness_answer(written, true))),
             is_right(plain_number(harness_answer(written, false)))}};
  }
};

}  // namespace

std::unique_ptr<EvalTask> gsm8k_task(TaskOptions const& options) {
  return std::make_unique<Gsm8k>(options);
}

}  // namespace fsllm
