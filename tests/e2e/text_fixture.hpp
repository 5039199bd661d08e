// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>

namespace fsllm::test {

/// tokenizer.json with 96 tokens at most: <unk> <s> </s>, letters, digits, blank, newline, some punctuation.
nlohmann::json small_tokenizer();

/// The random LLaMA of tests/reference with small_tokenizer(), in `dir`; with `positions`, for as many
/// tokens, which are letters here.
void write_text_model(std::filesystem::path const& dir, int positions = 0);

/// A few rows in the format of each data set of FS-LLM, under its file name, in `dir`.
void write_data_sets(std::filesystem::path const& dir);

}  // namespace fsllm::test
