// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "fsllm/text/added_tokens.hpp"
#include "fsllm/text/bpe.hpp"
#include "fsllm/text/pool.hpp"
#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// A SentencePiece `tokenizer.model` (unigram or BPE). Control symbols written in a text (<s>, </s>, <unk>)
/// are parsed as such; the text behind one gets no prefix space, unless tokenizer_config.json says `legacy`.
/// BOS is added unless tokenizer_config.json says otherwise (LLaMA's rule). An unknown token decodes to the
/// model's `unk_surface`. Plain BPE models (LLaMA's) are encoded by our own BPE, the others by the library.
/// Safe from many threads.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// `model` is the file's content; `where` names it in messages.
  SentencePieceTokenizer(std::string const& model, SpecialTokenRules const& rules, std::string const& sha256,
                         std::string const& where);
  ~SentencePieceTokenizer() override;
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const override;
  std::vector<int32_t> prefix() const override {
    return add_bos_ && bos_ ? std::vector<int32_t>{*bos_} : std::vector<int32_t>{};
  }
  std::string decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const override;
  int64_t vocab_size() const override;
  std::optional<int32_t> bos_id() const override { return bos_; }
  std::optional<int32_t> eos_id() const override { return eos_; }
  std::optional<int32_t> pad_id() const override { return pad_; }
  std::optional<int32_t> token_id(std::string_view token) const override;
  std::string piece(int32_t id) const override;
  std::string sha256() const override { return sha256_; }

 private:
  struct Processors;
  struct Memory {
    Bpe::Memory bpe;
    std::string text, valid;
    std::vector<TextPart> parts;
    std::vector<int> chunk;
  };
  void encode_chunk(std::string_view text, bool at_start, std::vector<int32_t>& ids, Memory& memory) const;
  void read_specials(SpecialTokenRules const& rules);
  bool is_special(int32_t id) const;
  std::unique_ptr<Processors const> processors_;
  std::unique_ptr<Bpe const> bpe_;  ///< null: the library encodes
  bool add_dummy_prefix_ = false, clean_up_ = false;
  bool legacy_ = false;  ///< a prefix space for every part between special tokens
  AddedTokenMatcher specials_;
  std::map<int32_t, AddedToken> added_;  ///< tokens of tokenizer_config.json and added_tokens.json
  std::optional<int32_t> bos_, eos_, pad_;
  bool add_bos_, add_eos_;
  std::string sha256_;
  mutable Pool<Memory> pool_;
};

}  // namespace fsllm
