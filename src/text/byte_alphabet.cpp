// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/utf8.hpp"
#include "fsllm/text/pretokenizer.hpp"

namespace fsllm {
namespace {

/// Bytes that are printable Latin-1 stand for themselves, the others for U+0100 on (Radford et al. 2019,
/// GPT-2).
bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// Inverse of the alphabet by code point (all are below 0x144); -1: not in it.
std::array<int16_t, 0x144> const& inverse() {
  static auto const table = [] {
    std::array<int16_t, 0x144> bytes;
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte)
      bytes[code_point_at(byte_alphabet()[static_cast<size_t>(byte)], 0).value] = static_cast<int16_t>(byte);
    return bytes;
  }();
  return table;
}

}  // namespace

std::array<std::string, 256> const& byte_alphabet() {
  static auto const table = [] {
    std::array<std::string, 256> characters;
    char32_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte)
      append_utf8(characters[static_cast<size_t>(byte)],
                  stands_for_itself(byte) ? static_cast<char32_t>(byte) : next++);
    return characters;
  }();
  return table;
}

bool bytes_of_alphabet(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (size_t at = 0; at < text.size();) {
    auto const c = code_point_at(text, at);
    if (c.value >= inverse().size() || inverse()[c.value] < 0) return false;
    bytes.push_back(static_cast<char>(inverse()[c.value]));
    at += c.length;
  }
  return true;
}

}  // namespace fsllm
