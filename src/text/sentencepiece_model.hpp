// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/text/special_tokens.hpp"

namespace fsllm {

/// The fields of a SentencePiece ModelProto that decide whether and how our own BPE can stand in for the
/// library, whose result it equals at many times its speed. Field numbers: sentencepiece_model.proto.
struct SentencePieceModel {
  enum Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string text;
    float score = 0;
    int type = normal;
  };
  std::vector<Piece> pieces;
  static constexpr int unigram = 1, bpe = 2;
  int model_type = unigram;
  bool byte_fallback = false, whitespace_as_suffix = false;
  bool has_charsmap = false, add_dummy_prefix = true, remove_extra_whitespaces = true,
       escape_whitespaces = true;

  /// BPE on text whose only normalisation is the visible space, with plain pieces alone.
  bool is_plain_bpe() const;
};

/// Reads a serialised ModelProto; broken parts end the reading.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes);
/// A ModelProto that the SentencePiece library reads: BPE with byte fallback where there are byte pieces.
std::string serialize(SentencePieceModel const& model, SpecialTokenRules const& rules);

}  // namespace fsllm
