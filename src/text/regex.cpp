// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

// Class members that mean in PCRE2 what Oniguruma's \s and \w mean (PCRE2's \s has U+180E in it, its \w lacks
// marks).
constexpr std::string_view kSpace = R"(\t-\r\x{85}\p{Z})";
constexpr std::string_view kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24B6}-\x{24E9}\x{1F130}-\x{1F149}\x{1F150}-\x{1F169}\x{1F170}-\x{1F189})";

// Letters and numbers with what Unicode 15 to 16 added, so that ids do not depend on the age of PCRE2 (10.42
// knows Unicode 14, Hugging Face's Oniguruma 16).
constexpr std::string_view kLetter =
    R"(\p{L}\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}-\x{11240}\x{11380}-\x{11389}\x{1138B}\x{1138E})"
    R"(\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10})"
    R"(\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D})"
    R"(\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D})"
    R"(\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNumber =
    R"(\p{N}\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9})"
    R"(\x{1E5F1}-\x{1E5FA})";

/// The class members that an escape stands for ("": keep the escape as it is) and the pattern's bytes it
/// takes.
struct Escape {
  std::string_view members;
  size_t length = 2;
  bool negated = false;
};

Escape read_escape(std::string_view rest) {
  if (rest.starts_with("\\p{L}")) return {kLetter, 5, false};
  if (rest.starts_with("\\p{N}")) return {kNumber, 5, false};
  char const kind = rest[1];
  if (kind == 's' || kind == 'S') return {kSpace, 2, kind == 'S'};
  if (kind == 'w' || kind == 'W') return {kWord, 2, kind == 'W'};
  return {"", 2, false};
}

std::string translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    char const c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out.push_back(c);
      continue;
    }
    auto const escape = read_escape(pattern.substr(i));
    if (escape.members.empty() || (in_class && escape.negated)) {
      out.append(pattern.substr(i, escape.length));
    } else if (in_class) {
      out.append(escape.members);
    } else {
      out.append(escape.negated ? "[^" : "[").append(escape.members).append("]");
    }
    i += escape.length - 1;
  }
  return out;
}

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256] = {};
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<char const*>(buffer);
}

PCRE2_SPTR units(std::string_view text) {
  return reinterpret_cast<PCRE2_SPTR>(text.data());
}

}  // namespace

struct Regex::Code {
  explicit Code(pcre2_code* compiled)
      : code(compiled), has_jit(pcre2_jit_compile(compiled, PCRE2_JIT_COMPLETE) == 0) {}
  ~Code() { pcre2_code_free(code); }
  Code(Code const&) = delete;
  Code& operator=(Code const&) = delete;
  pcre2_code* code;
  bool has_jit;  ///< without it matching is slower, not different
};

struct Regex::Memory::Impl {
  std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data{
      pcre2_match_data_create(1, nullptr), &pcre2_match_data_free};
  std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)> context{
      pcre2_match_context_create(nullptr), &pcre2_match_context_free};
  std::unique_ptr<pcre2_jit_stack, decltype(&pcre2_jit_stack_free)> stack{
      pcre2_jit_stack_create(size_t{32} << 10, size_t{8} << 20, nullptr), &pcre2_jit_stack_free};
  Impl() { pcre2_jit_stack_assign(context.get(), nullptr, stack.get()); }
};

Regex::Memory::Memory() : impl_(std::make_unique<Impl>()) {}
Regex::Memory::~Memory() = default;

Regex::Regex(std::string const& pattern, std::string const& where) : where_(where) {
  std::string const translated = translate(pattern);
  std::unique_ptr<pcre2_compile_context, decltype(&pcre2_compile_context_free)> context(
      pcre2_compile_context_create(nullptr), &pcre2_compile_context_free);
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(units(translated), translated.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error, &offset, context.get());
  FSLLM_CHECK(code != nullptr,
              "{}: the regular expression {} is not understood (at character {}: {}). Use a tokenizer "
              "whose pattern PCRE2 can read.",
              where, pattern, offset, message_of(error));
  code_ = std::make_shared<Code const>(code);
}

bool Regex::find(std::string_view text, size_t from, Match& match, Memory& memory) const {
  auto* const data = memory.impl_->data.get();
  auto* const run = code_->has_jit ? &pcre2_jit_match : &pcre2_match;
  int const found =
      run(code_->code, units(text), text.size(), from, PCRE2_NO_UTF_CHECK, data, memory.impl_->context.get());
  if (found == PCRE2_ERROR_NOMATCH) return false;
  FSLLM_CHECK(found >= 0, "{}: matching failed ({}). Shorten the text of {} bytes.", where_,
              message_of(found), text.size());
  auto const* const bounds = pcre2_get_ovector_pointer(data);
  match = {bounds[0], bounds[1]};
  return true;
}

}  // namespace fsllm
