// SPDX-License-Identifier: Apache-2.0
#include "lexer.hpp"

#include <algorithm>
#include <charconv>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"

namespace fsllm::jinja {
namespace {

constexpr std::string_view kSpaces = " \t\n\r\f\v";

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_start(char c) {
  return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool is_name_part(char c) {
  return is_name_start(c) || is_digit(c);
}

int64_t newlines(std::string_view text) {
  return std::count(text.begin(), text.end(), '\n');
}

class Lexer {
 public:
  Lexer(std::string_view source, std::string const& name) : source_(source), name_(name) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) read_text();
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  std::string_view rest() const { return source_.substr(at_); }
  void add(TokenKind kind, std::string_view text) { tokens_.push_back({kind, std::string(text), line_}); }

  [[noreturn]] void refuse_at(std::string const& why, int line) const {
    fail(fmt::format("{}:{}: {}. Correct the template.", name_, line, why));
  }

  void advance(size_t count) {
    line_ += static_cast<int>(newlines(source_.substr(at_, count)));
    at_ += count;
  }

  /// Text up to the next tag, and that tag.
  void read_text() {
    size_t tag = at_;
    while (true) {
      tag = std::min(source_.find('{', tag), source_.size());
      if (tag + 1 >= source_.size()) tag = source_.size();
      if (tag == source_.size() || std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos)
        break;
      ++tag;
    }
    auto text = source_.substr(at_, tag - at_);
    bool const has_tag = tag < source_.size();
    char const kind = has_tag ? source_[tag + 1] : ' ',
               sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (has_tag) text = left_of_tag(text, kind, sign);
    if (!text.empty()) add(TokenKind::text, text);
    advance(tag - at_);
    if (!has_tag) return;
    int const line = line_;
    advance(sign == '-' || (sign == '+' && kind != '{') ? 3 : 2);
    if (kind == '#') return skip_comment(line);
    if (kind == '%' && read_raw()) return;
    read_tag(kind == '{', line);
  }

  /// The text before a tag after `-` or lstrip_blocks took their white space.
  std::string_view left_of_tag(std::string_view text, char kind, char sign) const {
    if (sign == '-') return text.substr(0, text.find_last_not_of(kSpaces) + 1);
    if (kind == '{' || sign == '+') return text;
    size_t const line = text.rfind('\n') + 1;
    bool const begins_line = line > 0 || at_line_begin_;
    bool const blank = text.find_first_not_of(kSpaces, line) == std::string_view::npos;
    return begins_line && blank ? text.substr(0, line) : text;
  }

  /// Behind a tag: `-` takes all white space, trim_blocks one newline.
  void end_tag(bool minus, bool trims) {
    size_t count = 0;
    if (minus)
      count = std::min(rest().find_first_not_of(kSpaces), rest().size());
    else if (trims && rest().starts_with('\n'))
      count = 1;
    at_line_begin_ = count > 0 && rest()[count - 1] == '\n';
    advance(count);
  }

  void skip_comment(int line) {
    size_t const end = source_.find("#}", at_);
    if (end == std::string_view::npos) refuse_at("a comment {# has no end #}", line);
    char const sign = end > at_ ? source_[end - 1] : ' ';
    advance(end + 2 - at_);
    end_tag(sign == '-', sign != '+');
  }

  /// {% raw %} ... {% endraw %}, if it is one: everything between is text.
  bool read_raw() {
    size_t at = std::min(source_.find_first_not_of(kSpaces, at_), source_.size());
    if (!source_.substr(at).starts_with("raw")) return false;
    at = std::min(source_.find_first_not_of(kSpaces, at + 3), source_.size());
    bool const minus = source_.substr(at).starts_with("-%}");
    if (!minus && !source_.substr(at).starts_with("%}")) return false;
    int const line = line_;
    advance(at + (minus ? 3 : 2) - at_);
    end_tag(minus, true);
    for (size_t end = source_.find("{%", at_); end != std::string_view::npos;
         end = source_.find("{%", end + 1)) {
      size_t word = end + 2;
      char const sign = word < source_.size() ? source_[word] : ' ';
      if (sign == '-' || sign == '+') ++word;
      word = std::min(source_.find_first_not_of(kSpaces, word), source_.size());
      if (!source_.substr(word).starts_with("endraw")) continue;
      size_t close = std::min(source_.find_first_not_of(kSpaces, word + 6), source_.size());
      bool const ends_minus = source_.substr(close).starts_with("-%}");
      if (!ends_minus && !source_.substr(close).starts_with("%}")) continue;
      auto const text = left_of_tag(source_.substr(at_, end - at_), '%', sign);
      if (!text.empty()) add(TokenKind::text, text);
      advance(close + (ends_minus ? 3 : 2) - at_);
      end_tag(ends_minus, true);
      return true;
    }
    refuse_at("{% raw %} has no {% endraw %}", line);
  }

  void read_tag(bool output, int line) {
    tokens_.push_back({output ? TokenKind::output_begin : TokenKind::block_begin, "", line});
    int brackets = 0;
    while (true) {
      advance(std::min(rest().find_first_not_of(kSpaces), rest().size()));
      if (rest().empty()) refuse_at(output ? "a tag {{ has no end }}" : "a tag {% has no end %}", line);
      if (brackets == 0 && read_tag_end(output)) return;
      char const c = rest().front();
      if (c == '"' || c == '\'')
        read_string(c);
      else if (is_digit(c))
        read_number();
      else if (is_name_start(c))
        read_name();
      else {
        auto const symbol = read_symbol();
        if (symbol == "(" || symbol == "[" || symbol == "{") ++brackets;
        if (symbol == ")" || symbol == "]" || symbol == "}") --brackets;
      }
    }
  }

  bool read_tag_end(bool output) {
    std::string_view const end = output ? "}}" : "%}";
    char const sign = rest().front();
    bool const signed_end = (sign == '-' || (sign == '+' && !output)) && rest().substr(1).starts_with(end);
    if (!signed_end && !rest().starts_with(end)) return false;
    add(output ? TokenKind::output_end : TokenKind::block_end, "");
    advance(signed_end ? 3 : 2);
    end_tag(signed_end && sign == '-', !output && !signed_end);
    return true;
  }

  void read_name() {
    auto const text = rest();
    size_t const size =
        static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is_name_part) - text.begin());
    add(TokenKind::name, text.substr(0, size));
    advance(size);
  }

  void read_number() {
    auto const text = rest();
    auto const digits_from = [&](size_t at) {
      while (at < text.size() && (is_digit(text[at]) || text[at] == '_')) ++at;
      return at;
    };
    size_t size = digits_from(0);
    auto kind = TokenKind::integer;
    if (size + 1 < text.size() && text[size] == '.' && is_digit(text[size + 1])) {
      size = digits_from(size + 1);
      kind = TokenKind::real;
    }
    if (size + 1 < text.size() && (text[size] == 'e' || text[size] == 'E')) {
      size_t const sign = text[size + 1] == '-' || text[size + 1] == '+' ? 1 : 0;
      if (size + 1 + sign < text.size() && is_digit(text[size + 1 + sign])) {
        size = digits_from(size + 1 + sign);
        kind = TokenKind::real;
      }
    }
    std::string number(text.substr(0, size));
    std::erase(number, '_');
    add(kind, number);
    advance(size);
  }

  std::string read_symbol() {
    for (std::string_view const symbol : {"//", "**", "==", "!=", "<=", ">="})
      if (rest().starts_with(symbol)) return take_symbol(symbol);
    if (std::string_view("+-*/%~<>=()[]{}.,:|").find(rest().front()) == std::string_view::npos)
      refuse_at(fmt::format("the character '{}' has no meaning here", rest().front()), line_);
    return take_symbol(rest().substr(0, 1));
  }

  std::string take_symbol(std::string_view symbol) {
    add(TokenKind::symbol, symbol);
    advance(symbol.size());
    return std::string(symbol);
  }

  void read_string(char quote) {
    std::string text;
    size_t i = 1;
    auto const all = rest();
    for (; i < all.size() && all[i] != quote; ++i) {
      if (all[i] != '\\' || i + 1 >= all.size())
        text += all[i];
      else
        i += append_escape(all.substr(i), text);
    }
    if (i >= all.size()) refuse_at("a text has no closing quote", line_);
    add(TokenKind::string, text);
    advance(i + 1);
  }

  /// Python's escapes, from the backslash on. Gives how many characters follow the backslash.
  size_t append_escape(std::string_view escape, std::string& text) const {
    constexpr std::string_view kNames = "ntrbfva\\'\"0", kValues("\n\t\r\b\f\v\a\\'\"\0", 11);
    char const name = escape[1];
    if (name == '\n') return 1;
    if (size_t const at = kNames.find(name); at != std::string_view::npos) {
      text += kValues[at];
      return 1;
    }
    size_t const digits = name == 'x' ? 2 : name == 'u' ? 4 : name == 'U' ? 8 : 0;
    uint32_t code = 0;
    auto const hex = escape.substr(2, digits);
    auto const [end, error] = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
    if (digits == 0 || hex.size() < digits || error != std::errc() || end != hex.data() + hex.size()) {
      text += '\\';
      return 0;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      refuse_at("an escape that is no character", line_);
    append_utf8(text, code);
    return 1 + digits;
  }

  std::string_view source_;
  std::string const& name_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_begin_ = true;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, std::string const& name) {
  std::string text = replace_all(replace_all(source, "\r\n", "\n"), "\r", "\n");
  if (text.ends_with('\n')) text.pop_back();
  return Lexer(text, name).run();
}

}  // namespace fsllm::jinja
