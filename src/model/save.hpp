// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

namespace fsllm::detail {

/// config.json of a folder, or that of the model in a GGUF file.
nlohmann::ordered_json description_of(std::filesystem::path const& model);
void make_result_folder(std::filesystem::path const& dir);
/// The tokenizer and what else stands beside the weights of a folder.
void copy_files(std::filesystem::path const& out_dir, std::filesystem::path const& source_dir);
/// transformers' name of a type, for config.json.
std::string torch_name(at::ScalarType type);

}  // namespace fsllm::detail
