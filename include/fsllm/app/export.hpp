// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace fsllm {

/// What an export makes of a model and its adapter.
enum class ExportForm {
  peft,         ///< an adapter folder for peft, vLLM and transformers
  merged,       ///< a whole model in Hugging Face layout
  gguf,         ///< a whole model for llama.cpp and Ollama: model.gguf
  gguf_adapter  ///< a LoRA for llama.cpp: adapter.gguf
};

/// "peft", "merged", "gguf" or "gguf-adapter"; others are Errors.
ExportForm parse_export_form(std::string const& name);

struct ExportJob {
  ExportForm form = ExportForm::peft;
  std::filesystem::path model, adapter;  ///< no adapter: the model as it is (gguf alone)
  std::string dtype;                     ///< to write; "": fp32, for gguf fp16
  std::string storage_dtype = "auto";    ///< train.storage_dtype of the run: weights as the adapter knew them
  std::string base_model_name;           ///< "": what the run or the model's files say
  std::filesystem::path cache_dir;       ///< LoadOptions::cache_dir
};

/// The file of a form by which its readers know that the folder is whole.
std::string mark_of(ExportForm form);

/// What the form cannot say of this dtype, model or adapter is an Error, as is an adapter that changes
/// nothing. Reads no weights.
void check_export(ExportJob const& job);

/// Writes into `out`, an empty folder, then reads that back and compares logits with those of the model and
/// adapter in memory; a difference beyond rounding is an Error.
void write_export(ExportJob const& job, std::filesystem::path const& out);

}  // namespace fsllm
