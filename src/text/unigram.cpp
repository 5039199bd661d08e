// SPDX-License-Identifier: Apache-2.0
#include "fsllm/text/unigram.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// What an unknown character costs beyond the worst token (SentencePiece's kUnkPenalty).
constexpr double kUnknownPenalty = 10;

}  // namespace

Unigram::Unigram(json const& model, std::string const& where) : where_(where) {
  read_vocabulary(model.at("vocab"), where);
  auto const unknown = model.find("unk_id");
  if (unknown != model.end() && !unknown->is_null()) {
    auto const id = unknown->is_number_integer() ? unknown->get<int64_t>() : -1;
    FSLLM_CHECK(id >= 0 && id < size(), "{}: unk_id is {} (vocab has {} tokens). Copy the file again.", where,
                unknown->dump(), size());
    unknown_ = static_cast<int32_t>(id);
  }
  auto const bytes = model.find("byte_fallback");
  byte_fallback_ = bytes != model.end() && bytes->is_boolean() && bytes->get<bool>();
}

void Unigram::read_vocabulary(json const& vocab, std::string const& where) {
  FSLLM_CHECK(vocab.is_array() && !vocab.empty(),
              "{}: vocab is not a list of tokens and scores. Copy the file again.", where);
  node_tokens_.assign(1, -1);
  for (size_t i = 0; i < vocab.size(); ++i) {
    auto const& entry = vocab[i];
    bool const good = entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_number();
    FSLLM_CHECK(good, "{}: vocab entry {} is {} (it must be [token, score]). Copy the file again.", where, i,
                entry.dump());
    tokens_.push_back(entry[0].get<std::string>());
    scores_.push_back(entry[1].get<double>());
  }
  // Of a text that stands twice the last entry counts.
  for (int32_t id = size(); id-- > 0;)
    if (auto const& token = tokens_[static_cast<size_t>(id)]; table_.insert(token, id))
      add_to_trie(token, id);
  unknown_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
}

void Unigram::add_to_trie(std::string_view token, int32_t id) {
  int32_t node = 0;
  for (char const c : token) {
    int32_t const byte = static_cast<unsigned char>(c);
    int32_t next = children_.get(node, byte);
    if (next < 0) {
      next = static_cast<int32_t>(node_tokens_.size());
      node_tokens_.push_back(-1);
      children_.set(node, byte, next);
    }
    node = next;
  }
  if (node != 0) node_tokens_[static_cast<size_t>(node)] = id;
}

void Unigram::find_best(std::string_view word, std::vector<BestCut>& best) const {
  best.assign(word.size() + 1, {});
  auto const offer = [&](size_t begin, size_t end, double score, int32_t id) {
    double const sum = score + best[begin].score;
    if (best[end].begin < 0 || sum > best[end].score) best[end] = {sum, static_cast<int32_t>(begin), id};
  };
  for (size_t begin = 0; begin < word.size();) {
    size_t const character = code_point_at(word, begin).length;
    bool covered = false;
    int32_t node = 0;
    for (size_t end = begin; end < word.size();) {
      node = children_.get(node, static_cast<unsigned char>(word[end++]));
      if (node < 0) break;
      int32_t const id = node_tokens_[static_cast<size_t>(node)];
      if (id < 0) continue;
      offer(begin, end, scores_[static_cast<size_t>(id)], id);
      covered = covered || end - begin == character;
    }
    if (!covered) offer(begin, begin + character, unknown_score_, -1);
    begin += character;
  }
}

/// A run of unknown characters: a token after all, bytes, or one unknown token.
void Unigram::append_ids(std::string_view text, std::vector<int32_t>& ids) const {
  int32_t const whole = table_.find(text);
  if (whole >= 0) return ids.push_back(whole);
  std::vector<int32_t> bytes;
  for (char const c : text)
    if (byte_fallback_)
      bytes.push_back(table_.find(fmt::format("<0x{:02X}>", static_cast<unsigned char>(c))));
  if (byte_fallback_ && std::find(bytes.begin(), bytes.end(), -1) == bytes.end()) {
    ids.insert(ids.end(), bytes.begin(), bytes.end());
    return;
  }
  FSLLM_CHECK(unknown_,
              "{}: vocab has no token for '{}' (and unk_id is null). Use the tokenizer that belongs to the "
              "text, or set unk_id.",
              where_, text);
  ids.push_back(*unknown_);
}

void Unigram::encode(std::string_view word, std::vector<int32_t>& ids, Memory& memory) const {
  if (word.empty()) return;
  uint64_t const hash = hash_bytes(word);
  if (memory.cache.find(word, hash, ids)) return;
  find_best(word, memory.best);
  auto const is_unknown = [&](BestCut const& cut) { return cut.id < 0 || cut.id == unknown_; };
  memory.ids.clear();
  for (size_t end = word.size(); end > 0;) {  // from behind
    auto const* cut = &memory.best[end];
    auto begin = static_cast<size_t>(cut->begin);
    if (!is_unknown(*cut)) {
      memory.ids.push_back(cut->id);
    } else {
      for (; begin > 0 && is_unknown(memory.best[begin]);
           begin = static_cast<size_t>(memory.best[begin].begin))
        ;
      size_t const first = memory.ids.size();
      append_ids(word.substr(begin, end - begin), memory.ids);
      std::reverse(memory.ids.begin() + static_cast<int64_t>(first), memory.ids.end());
    }
    end = begin;
  }
  std::reverse(memory.ids.begin(), memory.ids.end());
  ids.insert(ids.end(), memory.ids.begin(), memory.ids.end());
  memory.cache.insert(word, hash, memory.ids.data(), memory.ids.size());
}

std::string const& Unigram::token(int32_t id) const {
  static std::string const none;
  return id >= 0 && id < size() ? tokens_[static_cast<size_t>(id)] : none;
}

std::optional<int32_t> Unigram::id_of(std::string_view token) const {
  int32_t const id = table_.find(token);
  return id == StringTable::kMissing ? std::nullopt : std::optional<int32_t>(id);
}

}  // namespace fsllm
