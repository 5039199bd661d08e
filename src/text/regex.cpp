// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/regex.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "fsllm/core/error.hpp"
#include "oniguruma.hpp"

namespace fsllm {
namespace {

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
  std::string const translated = translate_oniguruma(pattern, where);
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
