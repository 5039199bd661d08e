// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "fsllm/text/added_tokens.hpp"
#include "fsllm/text/bpe.hpp"
#include "fsllm/text/decoder.hpp"
#include "fsllm/text/normalizer.hpp"
#include "fsllm/text/pool.hpp"
#include "fsllm/text/pretokenizer.hpp"
#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"
#include "fsllm/text/unigram.hpp"

namespace fsllm {

/// What turns words into ids: the `model` of a tokenizer.json.
using WordModel = std::variant<Bpe, Unigram>;

/// A tokenizer.json with a BPE or Unigram model: added tokens, normalizer, pre-tokenizer, model,
/// post-processor, decoder, each as Hugging Face's `tokenizers` has it. Safe from many threads.
class JsonTokenizer final : public Tokenizer {
 public:
  /// `sha256` is that of the file; `where` names it in messages.
  JsonTokenizer(nlohmann::json const& document, SpecialTokenRules const& rules, std::string const& sha256,
                std::string const& where);
  /// With a model that was read from another file; `document` says the rest.
  JsonTokenizer(nlohmann::json const& document, WordModel model, SpecialTokenRules const& rules,
                std::string const& sha256, std::string const& where);
  std::vector<int32_t> encode(std::string_view text, bool add_special_tokens) const override;
  std::vector<int32_t> prefix() const override { return prefix_; }
  std::string decode(std::vector<int32_t> const& ids, bool skip_special_tokens) const override;
  int64_t vocab_size() const override { return vocab_size_; }
  std::optional<int32_t> bos_id() const override { return bos_; }
  std::optional<int32_t> eos_id() const override { return eos_; }
  std::optional<int32_t> pad_id() const override { return pad_; }
  std::optional<int32_t> token_id(std::string_view token) const override;
  std::string piece(int32_t id) const override;
  std::string sha256() const override { return sha256_; }

 private:
  /// Buffers of one encode call; kept for the next one, because the word cache is what makes encoding fast.
  struct Memory {
    PieceBuffer pieces;
    Bpe::Memory bpe;
    Unigram::Memory unigram;
    std::vector<TextPart> outer, inner;
    std::string valid, normalized;
  };

  std::string const& model_token(int32_t id) const;
  std::optional<int32_t> model_id(std::string_view token) const;
  void read_added_tokens(nlohmann::json const& document, SpecialTokenRules const& rules,
                         std::string const& where);
  void read_further_tokens(SpecialTokenRules const& rules);
  void read_post_processor(nlohmann::json const& description, std::string const& where);
  void apply_rules(SpecialTokenRules const& rules);
  void read_template(nlohmann::json const& description, std::string const& where);
  void encode_chunk(std::string_view text, bool at_start, std::vector<int32_t>& ids, Memory& memory) const;
  void encode_words(std::string_view text, bool at_start, std::vector<int32_t>& ids, Memory& memory) const;

  Normalizer normalizer_;
  PreTokenizer pretokenizer_;
  WordModel model_;
  Decoder decoder_;
  std::map<int32_t, AddedToken> added_;
  std::map<std::string, int32_t, std::less<>> added_ids_;
  AddedTokenMatcher in_original_, in_normalized_;
  std::vector<int32_t> prefix_, suffix_;  ///< what the post-processor adds
  std::optional<int32_t> bos_, eos_, pad_;
  std::string sha256_;
  bool clean_up_ = false;  ///< decode drops spaces before punctuation
  int64_t vocab_size_ = 0;
  mutable Pool<Memory> pool_;
};

}  // namespace fsllm
