// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/added_tokens.hpp"
#include "fsllm/text/bpe.hpp"
#include "fsllm/text/pretokenizer.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

/// "a b" or ["a", "b"].
std::pair<std::string, std::string> parts_of_merge(json const& merge, size_t index,
                                                   std::string const& where) {
  if (merge.is_array() && merge.size() == 2)
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  auto const text = merge.is_string() ? merge.get<std::string>() : std::string();
  auto const space = text.find(' ');
  FSLLM_CHECK(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
              "{}: merge {} is {} (it must be two tokens, \"a b\" or [\"a\", \"b\"]). Copy the file again.",
              where, index, merge.dump());
  return {text.substr(0, space), text.substr(space + 1)};
}

/// Options that change the result and that no causal language model of today uses.
void refuse_unknown_options(json const& model, std::string const& where) {
  for (auto const* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    auto const found = model.find(name);
    bool const empty = found == model.end() || found->is_null() || *found == "";
    FSLLM_CHECK(empty, "{}: {} = {} is not supported. Use a tokenizer without it.", where, name,
                found->dump());
  }
  auto const dropout = model.find("dropout");
  FSLLM_CHECK(dropout == model.end() || dropout->is_null() || *dropout == 0,
              "{}: dropout = {} would make ids random. Set it to null.", where, dropout->dump());
}

bool flag(json const& model, char const* name) {
  auto const found = model.find(name);
  return found != model.end() && found->is_boolean() && found->get<bool>();
}

}  // namespace

Bpe::Bpe(json const& model, bool byte_level, std::string const& where)
    : byte_level_(byte_level),
      ignore_merges_(flag(model, "ignore_merges")),
      fuse_unknown_(flag(model, "fuse_unk")) {
  refuse_unknown_options(model, where);
  read_vocabulary(model.at("vocab"), where);
  read_merges(model.at("merges"), where);
  read_symbols(model, where);
}

void Bpe::read_vocabulary(json const& vocab, std::string const& where) {
  FSLLM_CHECK(vocab.is_object() && !vocab.empty(),
              "{}: vocab is not a map of tokens to ids. Copy the file again.", where);
  std::string bytes;
  for (auto const& [token, value] : vocab.items()) {
    int64_t const id = value.is_number_integer() ? value.get<int64_t>() : -1;
    FSLLM_CHECK(id >= 0 && id < kTokenIdLimit,
                "{}: the id of token '{}' is {} (it must be a whole number from 0 to {}). "
                "Copy the file again.",
                where, token, value.dump(), kTokenIdLimit - 1);
    if (static_cast<size_t>(id) >= tokens_.size()) tokens_.resize(static_cast<size_t>(id) + 1);
    tokens_[static_cast<size_t>(id)] = token;
    if (!byte_level_) {
      table_.insert(token, static_cast<int32_t>(id));
    } else if (bytes_of_alphabet(token, bytes)) {
      table_.insert(bytes, static_cast<int32_t>(id));
    }
  }
}

std::optional<int32_t> Bpe::id_of(std::string_view token) const {
  std::string bytes;
  if (byte_level_ && !bytes_of_alphabet(token, bytes)) return std::nullopt;
  int32_t const id = table_.find(byte_level_ ? std::string_view(bytes) : token);
  return id == StringTable::kMissing ? std::nullopt : std::optional<int32_t>(id);
}

void Bpe::read_merges(json const& merges, std::string const& where) {
  FSLLM_CHECK(merges.is_array(), "{}: merges is not a list. Copy the file again.", where);
  for (size_t i = 0; i < merges.size(); ++i) {
    auto const [left, right] = parts_of_merge(merges[i], i, where);
    auto const left_id = id_of(left), right_id = id_of(right), merged_id = id_of(left + right);
    FSLLM_CHECK(left_id && right_id && merged_id,
                "{}: merge {} needs '{}', '{}' and '{}', which are not all in vocab. "
                "Copy the file again.",
                where, i, left, right, left + right);
    merges_.set(*left_id, *right_id, {static_cast<uint32_t>(i), *merged_id});
  }
}

void Bpe::read_symbols(json const& model, std::string const& where) {
  bool const byte_fallback = flag(model, "byte_fallback") && !byte_level_;
  for (size_t byte = 0; byte < 256; ++byte) {
    char const text = static_cast<char>(byte);
    byte_ids_[byte] = table_.find({&text, 1});
    fallback_ids_[byte] =
        byte_fallback ? table_.find(fmt::format("<0x{:02X}>", byte)) : StringTable::kMissing;
  }
  if (!byte_level_ && id_of(kVisibleSpace) && mark_only_leads(kVisibleSpace)) mark_ = kVisibleSpace;
  auto const unknown = model.find("unk_token");
  if (unknown == model.end() || unknown->is_null()) return;
  unknown_ = id_of(unknown->get<std::string>());
  FSLLM_CHECK(unknown_, "{}: unk_token {} is not in vocab. Copy the file again.", where, unknown->dump());
}

}  // namespace fsllm
