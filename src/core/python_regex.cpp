// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/python_regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

constexpr uint32_t kMostSteps = 1'000'000;

bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// A pattern of Python's on its way to PCRE2; `problem` says what Python does not know.
class Translation {
 public:
  explicit Translation(std::string_view pattern) : rest_(pattern), whole_(pattern) {
    while (!rest_.empty() && problem.empty()) step();
  }
  std::string text, problem;

 private:
  size_t at() const { return whole_.size() - rest_.size(); }
  void copy(size_t count) {
    text += rest_.substr(0, count);
    rest_.remove_prefix(std::min(count, rest_.size()));
  }
  void refuse(std::string const& what) { problem = fmt::format("{} at character {}", what, at()); }

  void step() {
    char const c = rest_.front();
    if (c == '\\') return escape();
    if (in_class_) return class_character(c);
    if (c == '[') return begin_class();
    if (c == '(') return group();
    if (c == '{') return repeat();
    copy(1);
  }

  void escape() {
    if (rest_.size() < 2) return refuse("a backslash");
    char const c = rest_[1];
    if (is_letter(c) && std::string_view("AbBdDsSwWZafnrtvxuU").find(c) == std::string_view::npos)
      return refuse(fmt::format("the escape \\{}", c));
    size_t const digits = c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits > 0) {
      auto const hex = rest_.substr(2, digits);
      bool const whole = hex.size() == digits && hex.find_first_not_of("0123456789abcdefABCDEF") == hex.npos;
      if (!whole) return refuse(fmt::format("the escape \\{}", c));
      text += fmt::format("\\x{{{}}}", hex);
      rest_.remove_prefix(2 + digits);
    } else if (c == 'Z' || c == 'v') {  // PCRE2's \Z allows a newline behind, its \v is a set
      text += c == 'Z' ? "\\z" : "\\x0b";
      rest_.remove_prefix(2);
    } else {
      copy(2);
    }
  }

  void begin_class() {
    copy(1);
    in_class_ = true;
    if (rest_.starts_with('^')) copy(1);
    if (rest_.starts_with(']')) copy(1);
  }

  void class_character(char c) {
    in_class_ = c != ']';
    if (c == '[') text += '\\';  // no POSIX class begins here
    copy(1);
  }

  void group() {
    if (rest_.starts_with("(*")) return refuse("nothing to repeat");
    if (!rest_.starts_with("(?")) return copy(1);
    auto const kind = rest_.substr(2);
    for (std::string_view const known : {"P<", "P=", ":", "#", "=", "!", "<=", "<!", ">", "("})
      if (kind.starts_with(known)) return known == "#" ? comment() : copy(2 + known.size());
    flags();
  }

  void comment() {
    size_t const end = rest_.find(')');
    if (end == rest_.npos) return refuse("a comment without an end");
    rest_.remove_prefix(end + 1);
  }

  /// (?aiLmsux-imsx:...) or, at the beginning, (?aiLmsux). Texts of ASCII need none of a, L and u.
  void flags() {
    size_t const end = std::min(rest_.find_first_of(":)"), rest_.size());
    auto flags = std::string(rest_.substr(2, end - 2));
    bool const known = !flags.empty() && flags.find_first_not_of("aiLmsux-") == flags.npos &&
                       std::count(flags.begin(), flags.end(), '-') <= 1;
    if (end == rest_.size() || !known) return refuse("an unknown extension (?");
    bool const global = rest_[end] == ')';
    if (global && at() > 0) return refuse("global flags that are not at the start");
    std::erase_if(flags, [](char c) { return c == 'a' || c == 'L' || c == 'u'; });
    if (flags == "-") flags.clear();
    if (!global || !flags.empty()) text += "(?" + flags + rest_[end];
    rest_.remove_prefix(end + 1);
  }

  /// {,n} is {0,n}.
  void repeat() {
    copy(1);
    size_t const end = rest_.find('}');
    if (rest_.starts_with(',') && end != rest_.npos &&
        rest_.substr(1, end - 1).find_first_not_of("0123456789") == rest_.npos)
      text += '0';
  }

  std::string_view rest_;
  std::string_view const whole_;
  bool in_class_ = false;
};

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<char const*>(buffer);
}

}  // namespace

struct PythonRegex::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  Code(Code const&) = delete;
  Code& operator=(Code const&) = delete;
  pcre2_code* code;
};

PythonRegex::PythonRegex(std::string const& pattern, std::string const& what)
    : what_(what), pattern_(pattern) {
  Translation translated(pattern);
  if (translated.problem.empty()) {
    std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
        pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    int error = 0;
    PCRE2_SIZE offset = 0;
    auto* const code =
        pcre2_compile(units(translated.text), translated.text.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context.get());
    if (code != nullptr)
      code_ = std::make_shared<Code const>(code);
    else
      translated.problem = fmt::format("{} at character {}", message_of(error), offset);
  }
  FSLLM_CHECK(code_ != nullptr, "{} = '{}' (not a regular expression: {}). Correct it.", what, pattern,
              translated.problem);
}

bool PythonRegex::fullmatch(std::string_view text) const {
  return run(text, PCRE2_ANCHORED | PCRE2_ENDANCHORED);
}

bool PythonRegex::match(std::string_view text) const {
  return run(text, PCRE2_ANCHORED);
}

bool PythonRegex::run(std::string_view text, unsigned options) const {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> const data(
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free);
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> const context(
      pcre2_match_context_create(nullptr), &pcre2_match_context_free);
  pcre2_set_match_limit(context.get(), kMostSteps);
  int const found = pcre2_match(code_->code, units(text), text.size(), 0, options, data.get(), context.get());
  FSLLM_CHECK(found >= 0 || found == PCRE2_ERROR_NOMATCH, "{} = '{}' (matching '{:.80}': {}). Simplify it.",
              what_, pattern_, text, message_of(found));
  return found >= 0;
}

}  // namespace fsllm
