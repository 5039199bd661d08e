// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/json_tokenizer.hpp"

#include <algorithm>

#include "fsllm/core/utf8.hpp"

namespace fsllm {

std::vector<int32_t> JsonTokenizer::encode(std::string_view text, bool add_special_tokens) const {
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

void JsonTokenizer::encode_chunk(std::string_view text, bool at_start, std::vector<int32_t>& ids,
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

void JsonTokenizer::encode_words(std::string_view text, bool at_start, std::vector<int32_t>& ids,
                                 Memory& memory) const {
  pretokenizer_.split(text, at_start, memory.pieces);
  auto const encode_all = [&](auto const& model, auto& model_memory) {
    for (auto const& [begin, end] : memory.pieces.pieces)
      model.encode(memory.pieces.text.substr(begin, end - begin), ids, model_memory);
  };
  if (auto const* bpe = std::get_if<Bpe>(&model_)) {
    encode_all(*bpe, memory.bpe);
  } else {
    encode_all(std::get<Unigram>(model_), memory.unigram);
  }
}

std::string const& JsonTokenizer::model_token(int32_t id) const {
  return std::visit([id](auto const& model) -> std::string const& { return model.token(id); }, model_);
}

std::optional<int32_t> JsonTokenizer::model_id(std::string_view token) const {
  return std::visit([token](auto const& model) { return model.id_of(token); }, model_);
}

std::string JsonTokenizer::decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (int32_t const id : ids) {
    auto const added = added_.find(id);
    if (added != added_.end()) {
      if (!skip_special_tokens || !added->second.special) tokens.push_back(added->second.content);
    } else if (!model_token(id).empty()) {
      tokens.push_back(model_token(id));
    }
  }
  auto text = decoder_.decode(std::move(tokens));
  return clean_up_ ? clean_up_spaces(std::move(text)) : text;
}

std::optional<int32_t> JsonTokenizer::token_id(std::string_view token) const {
  auto const added = added_ids_.find(token);
  return added != added_ids_.end() ? std::optional<int32_t>(added->second) : model_id(token);
}

std::string JsonTokenizer::piece(int32_t id) const {
  auto const added = added_.find(id);
  if (added != added_.end()) return added->second.special ? "" : added->second.content;
  std::string const text = model_token(id);
  std::string bytes;
  if (pretokenizer_.byte_level()) return bytes_of_alphabet(text, bytes) ? bytes : text;
  int const byte = byte_of_token(text);
  if (byte >= 0) return {static_cast<char>(byte)};
  return replace_all(text, kVisibleSpace, " ");
}

}  // namespace fsllm
