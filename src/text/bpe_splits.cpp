// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/bpe.hpp"
#include "fsllm/text/pretokenizer.hpp"
#include "sentencepiece_model.hpp"

namespace fsllm {
namespace {

/// SentencePiece merges the pair whose piece has the highest score, equal scores leftmost first: so the rank
/// of a merge is the place of its piece's score among the distinct scores.
std::vector<uint32_t> ranks_of(SentencePieceModel const& model) {
  std::vector<size_t> order(model.pieces.size());
  std::iota(order.begin(), order.end(), size_t{0});
  auto const score = [&](size_t i) { return model.pieces[i].score; };
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score(a) > score(b); });
  std::vector<uint32_t> ranks(order.size());
  for (size_t i = 1; i < order.size(); ++i)
    ranks[order[i]] = ranks[order[i - 1]] + (score(order[i]) < score(order[i - 1]) ? 1 : 0);
  return ranks;
}

}  // namespace

void Bpe::add_splits(std::string_view text, Merge merge) {
  auto const step = [&](size_t at) { return byte_level_ ? 1 : code_point_at(text, at).length; };
  for (size_t cut = step(0); cut < text.size(); cut += step(cut)) {
    int32_t const left = table_.find(text.substr(0, cut)), right = table_.find(text.substr(cut));
    if (left >= 0 && right >= 0) merges_.set(left, right, merge);
  }
}

Bpe::Bpe(SentencePieceModel const& model) : byte_level_(false), fuse_unknown_(true) {
  byte_ids_.fill(StringTable::kMissing);
  fallback_ids_.fill(StringTable::kMissing);
  for (size_t i = 0; i < model.pieces.size(); ++i) {
    auto const& piece = model.pieces[i];
    tokens_.push_back(piece.text);
    if (piece.type == SentencePieceModel::normal) table_.insert(piece.text, static_cast<int32_t>(i));
    if (piece.type == SentencePieceModel::unknown) unknown_ = static_cast<int32_t>(i);
  }
  for (int32_t id = 0; model.byte_fallback && id < size(); ++id)
    if (model.pieces[static_cast<size_t>(id)].type == SentencePieceModel::byte &&
        byte_of_token(token(id)) >= 0)
      fallback_ids_[static_cast<size_t>(byte_of_token(token(id)))] = id;
  auto const ranks = ranks_of(model);
  for (size_t i = 0; i < model.pieces.size(); ++i)
    if (model.pieces[i].type == SentencePieceModel::normal)
      add_splits(model.pieces[i].text, {ranks[i], static_cast<int32_t>(i)});
  if (table_.find(kVisibleSpace) >= 0 && mark_only_leads(kVisibleSpace)) mark_ = kVisibleSpace;
}

Bpe::Bpe(std::vector<std::string> const& tokens) : byte_level_(true), ignore_merges_(true) {
  fallback_ids_.fill(StringTable::kMissing);
  for (auto const& token : tokens) {
    table_.insert(token, size());
    auto& text = tokens_.emplace_back();
    for (char const c : token) text.append(byte_alphabet()[static_cast<unsigned char>(c)]);
  }
  for (size_t byte = 0; byte < 256; ++byte) {
    char const text = static_cast<char>(byte);
    byte_ids_[byte] = table_.find({&text, 1});
  }
  for (int32_t id = 0; id < size(); ++id)
    add_splits(tokens[static_cast<size_t>(id)], {static_cast<uint32_t>(id), id});
}

}  // namespace fsllm
