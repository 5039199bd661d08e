// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "fsllm/text/template.hpp"

namespace fsllm {

/// fsllm.json beside an adapter or a trained model: what scoring needs that neither weights nor PEFT's
/// adapter_config.json say.
struct AdapterInfo {
  std::optional<TemplateConfig> prompt;  ///< of the training rows, with its text; empty: not known
  int64_t tok_len = 0;
  std::string storage_dtype, compute_dtype;  ///< train.storage_dtype and train.compute_dtype
  std::string base_model;                    ///< where it lay
  std::string tokenizer_sha256;
};

void write_adapter_info(std::filesystem::path const& dir, AdapterInfo const& info);
/// Nothing where the folder has no fsllm.json. A damaged one is an Error.
std::optional<AdapterInfo> read_adapter_info(std::filesystem::path const& dir);
/// The prompt template `named` by the user; "": what the adapter (without one, the model) was trained with,
/// where its folder says it.
std::optional<TemplateConfig> template_for(std::string const& named, std::filesystem::path const& model,
                                           std::filesystem::path const& adapter);

}  // namespace fsllm
