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

/// Questions for the task mmlu below `data`: two subjects in the two forms of its files.
void write_mmlu(std::filesystem::path const& data);
/// A few rows for every other task, and files of a user's own: own.jsonl, prompts.jsonl, notes.txt.
void write_other_tasks(std::filesystem::path const& data);

}  // namespace fsllm::test
