// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <memory>

#include "fsllm/app/run_config.hpp"
#include "fsllm/text/tokenizer.hpp"

namespace fsllm {

/// The tokens of a run: those of the model, or of the adapter that it starts from, with llm.added_tokens.*
struct Vocabulary {
  std::unique_ptr<Tokenizer> tokenizer;  ///< null where the model has none
  std::filesystem::path source;          ///< folder or GGUF file that the tokenizer is read from
  int64_t size = 0;                      ///< rows that the embeddings need
  bool is_own = false;  ///< the tokenizer is not just the model's: it goes with what is trained
};

/// Added tokens without a tokenizer, and those that an adapter knows under other ids or has no rows for, are
/// Errors.
Vocabulary load_vocabulary(RunConfig const& run, std::filesystem::path const& model_dir,
                           ModelConfig const& model);

/// Writes the tokenizer's BOS, EOS and pad ids into the model folder's config.json and
/// generation_config.json, from which other programs take where an answer ends.
void write_special_ids(std::filesystem::path const& model_dir, Tokenizer const& tokenizer);

}  // namespace fsllm
