// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "fsllm/text/template.hpp"

namespace fsllm {

/// What a model card says of the training.
struct TrainingFacts {
  std::string base_model_name;  ///< the model's public name, never a path
  std::string license;          ///< of the model, where its files say it
  std::string adapter;          ///< adapter method; "": all parameters were trained
  std::string algorithm;        ///< federate.method
  std::string data, splitter;
  int64_t clients = 0, rows = 0, tokens = 0;  ///< rows and tokens that clients learn from
  int64_t round = 0;                          ///< the values are those after it
  std::map<std::string, double> losses;       ///< split → mean loss, to four decimals
  std::string loss_unit;                      ///< "token" or "pair"
};

/// fsllm.json beside an adapter or a trained model: what scoring needs that neither weights nor PEFT's
/// adapter_config.json say.
struct AdapterInfo {
  std::optional<TemplateConfig> prompt;  ///< of the training rows, with its text; empty: not known
  int64_t tok_len = 0;
  std::string storage_dtype, compute_dtype;  ///< train.storage_dtype and train.compute_dtype
  std::string base_model;                    ///< where it lay; "" in what was exported
  std::string tokenizer_sha256;
  std::optional<TrainingFacts> training = {};  ///< empty where an earlier version wrote it
};

void write_adapter_info(std::filesystem::path const& dir, AdapterInfo const& info);
/// Nothing where the folder has no fsllm.json. A damaged one is an Error.
std::optional<AdapterInfo> read_adapter_info(std::filesystem::path const& dir);
/// The prompt template `named` by the user; "": what the adapter (without one, the model) was trained with,
/// where its folder says it.
std::optional<TemplateConfig> template_for(std::string const& named, std::filesystem::path const& model,
                                           std::filesystem::path const& adapter);

}  // namespace fsllm
