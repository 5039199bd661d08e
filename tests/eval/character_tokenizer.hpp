// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "fsllm/text/tokenizer.hpp"

namespace fsllm::test {

/// Printable ASCII character c is token c - 32; "ab" is the one token 95; other bytes are dropped.
struct CharacterTokenizer final : Tokenizer {
  bool adds_bos = false, adds_eos = false;
  std::optional<int32_t> bos, eos;

  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const override {
    auto ids = add_special_tokens ? prefix() : std::vector<int32_t>();
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.substr(i, 2) == "ab") {
        ids.push_back(95);
        ++i;
      } else if (text[i] >= 32 && text[i] < 127) {
        ids.push_back(text[i] - 32);
      }
    }
    if (add_special_tokens && adds_eos && eos) ids.push_back(*eos);
    return ids;
  }
  std::vector<int32_t> prefix() const override {
    return adds_bos && bos ? std::vector<int32_t>{*bos} : std::vector<int32_t>();
  }
  std::string decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const override {
    std::string text;
    for (auto const id : ids)
      if (!skip_special_tokens || (id != bos && id != eos)) text += piece(id);
    return text;
  }
  int64_t vocab_size() const override { return 96; }
  std::optional<int32_t> bos_id() const override { return bos; }
  std::optional<int32_t> eos_id() const override { return eos; }
  std::optional<int32_t> pad_id() const override { return {}; }
  std::optional<int32_t> token_id(std::string_view) const override { return {}; }
  std::string piece(int32_t id) const override {
    return id == 95 ? "ab" : std::string(1, static_cast<char>(id + 32));
  }
  std::string sha256() const override { return ""; }
};

}  // namespace fsllm::test
