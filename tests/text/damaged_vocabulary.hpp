// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace fsllm::test {

/// The tokenizer's metadata of a vocabulary file of the test data (llama.cpp-vocab/*.gguf). Those files went
/// through a text filter that wrote U+FFFD for every byte that is not UTF-8: texts and small numbers are
/// whole, counts, some lengths and the scores are not. Everything that was lost follows from the rest.
nlohmann::json read_damaged_vocabulary(std::filesystem::path const& file);

}  // namespace fsllm::test
