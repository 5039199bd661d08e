// SPDX-License-Identifier: Apache-2.0
#include "text_rows.hpp"

#include <algorithm>

#include "fsllm/core/error.hpp"

namespace fsllm::detail {
namespace {

bool is_space(uint32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

/// The last code point of a text and the bytes it takes (at most three: no space takes four).
std::pair<uint32_t, size_t> last_character(std::string_view text) {
  uint32_t value = 0;
  for (size_t size = 1; size <= std::min<size_t>(3, text.size()); ++size) {
    auto const byte = static_cast<uint8_t>(text[text.size() - size]);
    if (byte < 0x80) return {byte, 1};
    if (byte >= 0xc0) return {value | (byte & (0x7fU >> size)) << (6 * (size - 1)), size};
    value |= (byte & 0x3fU) << (6 * (size - 1));
  }
  return {0, 1};
}

}  // namespace

size_t trailing_space(std::string_view text) {
  size_t const all = text.size();
  while (!text.empty()) {
    auto const [character, size] = last_character(text);
    if (!is_space(character)) break;
    text.remove_suffix(size);
  }
  return all - text.size();
}

int32_t prefix_id(Tokenizer const& tokenizer) {
  auto const bos = tokenizer.bos_id(), eos = tokenizer.eos_id();
  FSLLM_CHECK(bos || eos,
              "an empty context (the tokenizer has neither BOS nor EOS to stand for it). Use a model whose "
              "tokenizer has one.");
  return bos ? *bos : *eos;
}

ScoredContext::ScoredContext(Tokenizer const& tokenizer, std::string context)
    : tokenizer_(tokenizer), text_(std::move(context)) {
  auto const spaces = trailing_space(text_);
  spaces_ = text_.substr(text_.size() - spaces);
  text_.resize(text_.size() - spaces);
  tokens_ = text_.empty() ? 1 : static_cast<int64_t>(tokenizer_.encode_beginning(text_).size());
}

ScoredRow ScoredContext::row(std::string const& continuation) const {
  auto const behind = spaces_ + continuation;
  if (text_.empty()) {
    auto ids = tokenizer_.encode(behind, false);
    auto const count = static_cast<int64_t>(ids.size());
    ids.insert(ids.begin(), prefix_id(tokenizer_));
    return {std::move(ids), count};
  }
  auto whole = tokenizer_.encode_beginning(text_ + behind);
  auto const count = static_cast<int64_t>(whole.size()) - tokens_;
  return {std::move(whole), count};
}

}  // namespace fsllm::detail
