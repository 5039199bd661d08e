// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fsllm/text/special_tokens.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// The tokenizer in the metadata of a GGUF file, as the files that Hugging Face would have for it: byte-level
/// BPE ("gpt2") as a tokenizer.json with the words of `tokenizer.ggml.pre`, SentencePiece BPE ("llama") as a
/// serialised tokenizer.model. Incomplete or unknown vocabularies are Errors; `where` names the file.
struct GgufTokenizer {
  std::string file_name;  ///< "tokenizer.json" or "tokenizer.model"
  std::string content;
  SpecialTokenRules rules;
  std::string chat_template;  ///< "" where the file has none
};
GgufTokenizer read_gguf_tokenizer(nlohmann::json const& metadata, std::string const& where);

/// Writes tokenizer.json or tokenizer.model and tokenizer_config.json of a GGUF file to a folder.
void export_gguf_tokenizer(std::filesystem::path const& gguf, std::filesystem::path const& out_dir);

}  // namespace fsllm
