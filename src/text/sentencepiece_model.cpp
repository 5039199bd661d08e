// SPDX-License-Identifier: Apache-2.0
#include "sentencepiece_model.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <set>

#include "fsllm/core/utf8.hpp"

namespace fsllm {
namespace {

/// One field of a protobuf message: its number, and its value as an integer or as bytes.
struct Field {
  uint64_t number = 0, value = 0;
  std::string_view bytes;
};

/// Walks the fields of a serialised message.
class Message {
 public:
  explicit Message(std::string_view rest) : rest_(rest) {}
  /// False at the end, and at anything that is not protobuf.
  bool next(Field& field) {
    uint64_t key = 0, length = 0;
    field = {};
    if (!varint(key)) return false;
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        return varint(field.value);
      case 1:
        return take(8, field.bytes);
      case 2:
        return varint(length) && take(length, field.bytes);
      case 5:
        return take(4, field.bytes);
      default:
        return false;
    }
  }

 private:
  bool varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      auto const byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }
  bool take(uint64_t count, std::string_view& bytes) {
    if (count > rest_.size()) return false;
    bytes = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return true;
  }
  std::string_view rest_;
};

SentencePieceModel::Piece parse_piece(std::string_view bytes) {
  SentencePieceModel::Piece piece;
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == 4) std::memcpy(&piece.score, field.bytes.data(), 4);
    if (field.number == 3) piece.type = static_cast<int>(field.value);
  }
  return piece;
}

void parse_trainer_spec(std::string_view bytes, SentencePieceModel& model) {
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == 3) model.model_type = static_cast<int>(field.value);
    if (field.number == 24) model.whitespace_as_suffix = field.value != 0;
    if (field.number == 35) model.byte_fallback = field.value != 0;
  }
}

void parse_normalizer_spec(std::string_view bytes, SentencePieceModel& model) {
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == 2) model.has_charsmap = !field.bytes.empty();
    if (field.number == 3) model.add_dummy_prefix = field.value != 0;
    if (field.number == 4) model.remove_extra_whitespaces = field.value != 0;
    if (field.number == 5) model.escape_whitespaces = field.value != 0;
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes) {
  SentencePieceModel model;
  Message message(bytes);
  for (Field field; message.next(field);) {
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes));
    if (field.number == 2) parse_trainer_spec(field.bytes, model);
    if (field.number == 3) parse_normalizer_spec(field.bytes, model);
  }
  return model;
}

bool SentencePieceModel::is_plain_bpe() const {
  if (model_type != bpe || whitespace_as_suffix || has_charsmap || remove_extra_whitespaces ||
      !escape_whitespaces)
    return false;
  std::set<std::string_view> characters;
  std::string buffer;
  for (auto const& piece : pieces) {
    bool const is_text = !piece.text.empty() && valid_utf8(piece.text, buffer).data() == piece.text.data();
    if (piece.type == user_defined || piece.type == unused || !is_text) return false;
    if (piece.type == normal && code_point_at(piece.text, 0).length == piece.text.size())
      characters.insert(piece.text);
  }
  // Our symbols are ids: a piece with a character that is no piece itself could not be built from them.
  return std::all_of(pieces.begin(), pieces.end(), [&](Piece const& piece) {
    std::string_view rest = piece.text;
    while (piece.type == normal && !rest.empty()) {
      auto const length = code_point_at(rest, 0).length;
      if (!characters.contains(rest.substr(0, length))) return false;
      rest.remove_prefix(length);
    }
    return true;
  });
}

}  // namespace fsllm
