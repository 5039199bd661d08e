// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>

namespace fsllm {

/// The keys `tokenizer.*` that a GGUF file has for the tokenizer in `source` (a folder in Hugging Face
/// layout, or a GGUF file, whose own they stay), for a model with `rows` embeddings: the opposite of
/// read_gguf_tokenizer(). Vocabularies that llama.cpp has no name for, and folders without one, are Errors.
nlohmann::ordered_json gguf_vocabulary(std::filesystem::path const& source, int64_t rows);

}  // namespace fsllm
