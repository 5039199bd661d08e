// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fsllm/text/token_additions.hpp"

namespace fsllm {

/// Text to token ids and back, as the model's own Hugging Face tokenizer does it.
struct Tokenizer {
  virtual ~Tokenizer() = default;
  /// Special tokens written in the text are parsed as such; with `add_special_tokens` the tokenizer's own
  /// BOS / EOS rule applies (post-processor, tokenizer_config.json).
  virtual std::vector<int32_t> encode(std::string_view text, bool add_special_tokens = true) const = 0;
  /// What the rule puts before a text.
  virtual std::vector<int32_t> prefix() const = 0;
  /// A text that goes on, a prompt say: as encode() has it, without what the rule puts behind.
  std::vector<int32_t> encode_beginning(std::string_view text) const;
  virtual std::string decode(std::vector<int32_t> const& ids, bool skip_special_tokens = false) const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
  virtual std::optional<int32_t> pad_id() const = 0;
  virtual std::optional<int32_t> token_id(std::string_view token) const = 0;
  /// The bytes one token stands for, for streaming and previews ("" for special tokens).
  virtual std::string piece(int32_t id) const = 0;
  /// Identifies vocabulary, merges and rules: SHA-256 of the files it was read from.
  virtual std::string sha256() const = 0;
};

/// Of a folder: reads tokenizer.json (BPE, Unigram), else tokenizer.model (SentencePiece, or LLaMA 3's
/// tiktoken vocabulary), else vocab.json with merges.txt (GPT-2), and tokenizer_config.json,
/// special_tokens_map.json, added_tokens.json, config.json beside it for BOS, EOS, pad and added tokens. Of a
/// GGUF file: its metadata. Errors name the file and the construct.
std::unique_ptr<Tokenizer> load_tokenizer(std::filesystem::path const& model,
                                          TokenAdditions const& additions = {});
/// Does the folder or GGUF file hold a tokenizer at all? (Token-row data needs none.)
bool has_tokenizer(std::filesystem::path const& model);
/// The adapter's folder if it holds a tokenizer of its own, not a copy of the model's; else the model.
std::filesystem::path tokenizer_source(std::filesystem::path const& model_dir,
                                       std::filesystem::path const& adapter_dir);

}  // namespace fsllm
