// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/bpe_tokenizer.hpp"

#include <algorithm>

#include "fsllm/text/utf8.hpp"

namespace fsllm {

std::vector<int32_t> BpeTokenizer::encode(std::string_view text, bool add_special_tokens) const {
  auto lease = pool_.borrow();
  auto& memory = *lease;
  text = valid_utf8(text, memory.valid);
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  if (add_special_tokens) ids = prefix_;
  memory.outer.clear();
  in_original_.split(text, 0, text.size(), memory.outer);
  for (auto const& part : memory.outer) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_chunk(text.substr(part.begin, part.end - part.begin), part.begin == 0, ids, memory);
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  return ids;
}

void BpeTokenizer::encode_chunk(std::string_view text, bool at_start, std::vector<int32_t>& ids,
                                Memory& memory) const {
  if (!normalizer_.leaves_alone(text)) {
    memory.normalized.assign(text);
    normalizer_.apply(memory.normalized, memory.pieces.regex);
    text = memory.normalized;
  }
  memory.inner.clear();
  in_normalized_.split(text, 0, text.size(), memory.inner);
  for (auto const& part : memory.inner) {
    if (part.id >= 0) {
      ids.push_back(part.id);
    } else {
      encode_words(text.substr(part.begin, part.end - part.begin), at_start && part.begin == 0, ids, memory);
    }
  }
}

void BpeTokenizer::encode_words(std::string_view text, bool at_start, std::vector<int32_t>& ids,
                                Memory& memory) const {
  pretokenizer_.split(text, at_start, memory.pieces);
  for (auto const& piece : memory.pieces.pieces) {
    auto const word = memory.pieces.text.substr(piece.begin, piece.end - piece.begin);
    bpe_.encode_marked(word, mark_, ids, memory.bpe);
  }
}

std::string BpeTokenizer::decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t const id : ids) {
    auto const added = added_.find(id);
    if (added != added_.end()) {
      if (!skip_special_tokens || !added->second.special) tokens.push_back(added->second.content);
    } else if (!bpe_.token(id).empty()) {
      tokens.push_back(bpe_.token(id));
    }
  }
  return decoder_.decode(std::move(tokens));
}

std::optional<int32_t> BpeTokenizer::token_id(std::string_view token) const {
  auto const added = added_ids_.find(token);
  return added != added_ids_.end() ? std::optional<int32_t>(added->second) : bpe_.id_of(token);
}

std::string BpeTokenizer::piece(int32_t id) const {
  auto const added = added_.find(id);
  if (added != added_.end()) return added->second.special ? "" : added->second.content;
  std::string const text = bpe_.token(id);
  std::string bytes;
  if (pretokenizer_.byte_level()) return bytes_of_alphabet(text, bytes) ? bytes : text;
  int const byte = byte_of_token(text);
  if (byte >= 0) return {static_cast<char>(byte)};
  return replace_all(text, kVisibleSpace, " ");
}

}  // namespace fsllm
