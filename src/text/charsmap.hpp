// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm {

/// A `precompiled_charsmap` of SentencePiece: a double array (Darts, Aoe 1989) over character sequences, and
/// the texts that replace them.
class Charsmap {
 public:
  /// `bytes`: size of the array in bytes (uint32, little-endian), the array, texts that end in a zero byte.
  /// `where` names the file.
  Charsmap(std::string const& bytes, std::string const& where);
  /// Normalises valid UTF-8 as Hugging Face's `Precompiled` does: grapheme clusters of fewer than six bytes
  /// as a whole where the map knows how they begin, else character by character.
  std::string apply(std::string_view text) const;

 private:
  /// What replaces the shortest sequence known with which `part` begins.
  std::optional<std::string_view> find(std::string_view part) const;
  void append_cluster(std::string_view cluster, std::string& out) const;
  std::vector<uint32_t> units_;
  std::string texts_;
};

}  // namespace fsllm
