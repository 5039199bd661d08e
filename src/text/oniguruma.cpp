// SPDX-License-Identifier: Apache-2.0
#include "oniguruma.hpp"

#include "fsllm/core/error.hpp"
#include "unicode_tables.hpp"

namespace fsllm {
namespace {

/// A set of characters as the members of a PCRE2 class, and the pattern's bytes that stood for it (0: none).
struct Set {
  std::string members;
  size_t length = 0;
  bool negated = false;
};

/// \p{L}, and what is newer than PCRE2.
std::string members_of(std::string_view category) {
  auto out = fmt::format("\\p{{{}}}", category);
  for (auto const& range : newer_characters()) {
    std::string_view const name = range.category;
    bool const cased = name == "Lu" || name == "Ll" || name == "Lt";
    if (name.starts_with(category) || ((category == "L&" || category == "LC") && cased))
      out += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", static_cast<uint32_t>(range.first),
                         static_cast<uint32_t>(range.last));
  }
  return out;
}

/// \p{L}, \P{L}, \p{^L} of one of the general categories.
Set read_property(std::string_view rest) {
  size_t const close = rest.find('}');
  if (rest.size() < 4 || rest[2] != '{' || close == std::string_view::npos) return {};
  auto name = rest.substr(3, close - 3);
  bool const caret = name.starts_with('^');
  name.remove_prefix(caret ? 1 : 0);
  if (name == "L&") name = "LC";
  bool const known = name == "LC" || (!name.empty() && name.size() <= 2 && name[0] >= 'A' && name[0] <= 'Z' &&
                                      name.find_first_not_of("abcdefghijklmnopqrstuvwxyz", 1) == name.npos);
  if (!known) return {};
  auto members = name == "LC" ? members_of("L&") : members_of(name);
  return {std::move(members), close + 1, (rest[1] == 'P') != caret};
}

/// The sets that escapes stand for; PCRE2's \s has U+180E in it, its \w lacks marks, its \h are spaces.
Set read_escape(std::string_view rest) {
  char const kind = rest.size() > 1 ? rest[1] : '\0';
  bool const negated = kind >= 'A' && kind <= 'Z';
  switch (kind) {
    case 'p':
    case 'P':
      return read_property(rest);
    case 's':
    case 'S':
      return {R"(\t-\r\x{85}\p{Z})", 2, negated};
    case 'h':
    case 'H':
      return {"0-9A-Fa-f", 2, negated};
    case 'd':
    case 'D':
      return {members_of("Nd"), 2, negated};
    case 'w':
    case 'W':
      return {members_of("L") + members_of("M") + members_of("Nd") + members_of("Nl") + members_of("Pc") +
                  R"(\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})",
              2, negated};
    default:
      return {};
  }
}

class Translator {
 public:
  Translator(std::string_view pattern, std::string const& where) : pattern_(pattern), where_(where) {}
  std::string run() {
    while (at_ < pattern_.size()) step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string const& what) const {
    fail(fmt::format("{}: the regular expression {} is not understood ({}). Use a tokenizer without it.",
                     where_, pattern_, what));
  }
  void copy(size_t count) {
    count = std::min(count, pattern_.size() - at_);
    out_.append(pattern_.substr(at_, count));
    at_ += count;
  }
  void step() {
    auto const rest = pattern_.substr(at_);
    if (rest[0] == '\\') return escape(rest);
    if (rest[0] == '[') return open(rest);
    if (depth_ > 0 && rest.starts_with("&&")) refuse("it has an intersection of classes");
    if (depth_ == 0 || rest[0] != ']' || --depth_ == 0) return copy(1);
    ++at_;  // the end of a nested class
  }
  void open(std::string_view rest) {
    size_t const posix_end = rest.find(":]");
    if (depth_ > 0 && rest.starts_with("[:") && posix_end != std::string_view::npos)
      return copy(posix_end + 2);
    if (++depth_ == 1) return copy(rest.starts_with("[^") ? 2 : 1);
    if (rest.starts_with("[^")) refuse("it has a negated class within a class");
    ++at_;
  }
  void escape(std::string_view rest) {
    auto const set = read_escape(rest);
    // A negated set within a class has no list of members: PCRE2's own meaning must do.
    if (set.length == 0 || (depth_ > 0 && set.negated)) return copy(set.length == 0 ? 2 : set.length);
    if (depth_ > 0) {
      out_ += set.members;
    } else {
      out_.append(set.negated ? "[^" : "[").append(set.members).append("]");
    }
    at_ += set.length;
  }

  std::string_view pattern_;
  std::string const& where_;
  std::string out_;
  size_t at_ = 0;
  int depth_ = 0;  ///< of classes
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, std::string const& where) {
  return Translator(pattern, where).run();
}

}  // namespace fsllm
