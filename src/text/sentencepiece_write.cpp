// SPDX-License-Identifier: Apache-2.0
// Field numbers: sentencepiece_model.proto.
#include <algorithm>
#include <cstring>

#include "sentencepiece_model.hpp"

namespace fsllm {
namespace {

/// A protobuf message under construction.
class MessageWriter {
 public:
  void number(uint64_t field, uint64_t value) {
    varint(field << 3);
    varint(value);
  }
  void text(uint64_t field, std::string_view bytes) {
    varint(field << 3 | 2);
    varint(bytes.size());
    bytes_.append(bytes);
  }
  void single(uint64_t field, float value) {
    varint(field << 3 | 5);
    char raw[sizeof value];
    std::memcpy(raw, &value, sizeof value);
    bytes_.append(raw, sizeof raw);
  }
  std::string const& bytes() const { return bytes_; }

 private:
  void varint(uint64_t value) {
    for (; value >= 0x80; value >>= 7) bytes_.push_back(static_cast<char>(value | 0x80));
    bytes_.push_back(static_cast<char>(value));
  }
  std::string bytes_;
};

MessageWriter trainer_spec(SentencePieceModel const& model, SpecialTokenRules const& rules) {
  MessageWriter spec;
  spec.number(3, static_cast<uint64_t>(model.model_type));
  spec.number(4, model.pieces.size());
  spec.number(35, std::any_of(model.pieces.begin(), model.pieces.end(),
                              [](auto const& piece) { return piece.type == SentencePieceModel::byte; })
                      ? 1
                      : 0);
  // The library finds these by their text; without one it looks for "<s>" and so on.
  if (rules.unk) spec.text(45, *rules.unk);
  if (rules.bos) spec.text(46, *rules.bos);
  if (rules.eos) spec.text(47, *rules.eos);
  if (rules.pad) spec.text(48, *rules.pad);
  return spec;
}

}  // namespace

std::string serialize(SentencePieceModel const& model, SpecialTokenRules const& rules) {
  MessageWriter all;
  for (auto const& piece : model.pieces) {
    MessageWriter one;
    one.text(1, piece.text);
    one.single(2, piece.score);
    one.number(3, static_cast<uint64_t>(piece.type));
    all.text(1, one.bytes());
  }
  all.text(2, trainer_spec(model, rules).bytes());
  MessageWriter normalizer;
  normalizer.text(1, "identity");
  normalizer.number(3, model.add_dummy_prefix ? 1 : 0);
  normalizer.number(4, model.remove_extra_whitespaces ? 1 : 0);
  normalizer.number(5, model.escape_whitespaces ? 1 : 0);
  all.text(3, normalizer.bytes());
  return all.bytes();
}

}  // namespace fsllm
