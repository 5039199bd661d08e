// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"
#include "fsllm/io/safetensors.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// Keys that change what a LoRA computes and that must be null, false or empty here.
constexpr char const* kUnsupported[] = {"use_dora",          "lora_bias",
                                        "rank_pattern",      "alpha_pattern",
                                        "modules_to_save",   "exclude_modules",
                                        "layer_replication", "layers_to_transform",
                                        "target_parameters", "trainable_token_indices",
                                        "use_qalora",        "use_bdlora",
                                        "arrow_config",      "alora_invocation_tokens"};

bool is_nothing(json const& value) {
  if (value.is_boolean()) return !value.get<bool>();
  return value.is_null() || (value.is_structured() && value.empty());
}

/// A key of adapter_config.json, with PEFT's default where it is absent or null.
template <class T>
T value_of(json const& config, char const* key, T fallback, fs::path const& file) {
  auto const found = config.find(key);
  if (found == config.end() || found->is_null()) return fallback;
  try {
    return found->get<T>();
  } catch (json::exception const&) {
    fail(fmt::format("{}: '{}' = {} (another kind of value is needed). Export the adapter again.",
                     file.string(), key, found->dump()));
  }
}

void check_supported(json const& config, fs::path const& file) {
  auto const type = value_of<std::string>(config, "peft_type", "", file);
  FSLLM_CHECK(type == "LORA", "{}: peft_type = '{}' (not available in this version). Use a LoRA adapter.",
              file.string(), type);
  for (auto const* key : kUnsupported)
    FSLLM_CHECK(!config.contains(key) || is_nothing(config[key]),
                "{}: '{}' = {} (not available in this version). Use an adapter without it.", file.string(),
                key, config[key].dump());
  auto const bias = value_of<std::string>(config, "bias", "none", file);
  FSLLM_CHECK(bias == "none", "{}: 'bias' = '{}' (not available in this version). Use an adapter without it.",
              file.string(), bias);
}

void read_targets(json const& config, PeftConfig& lora, fs::path const& file) {
  auto const found = config.find("target_modules");
  if (found == config.end() || found->is_null()) return;
  if (!found->is_string())
    lora.target_modules = value_of<std::vector<std::string>>(config, "target_modules", {}, file);
  else if (*found == "all-linear")
    lora.target_modules = {"all-linear"};
  else
    lora.target_pattern = found->get<std::string>();
}

}  // namespace

PeftConfig read_adapter_config(fs::path const& dir) {
  auto const file = dir / "adapter_config.json";
  FSLLM_CHECK(fs::exists(file),
              "no adapter_config.json in {} (a PEFT adapter folder holds it and adapter_model.safetensors). "
              "Correct the path.",
              dir.string());
  auto const config = read_json(file);
  FSLLM_CHECK(config.is_object(), "{} is not a JSON object. Export the adapter again.", file.string());
  check_supported(config, file);
  PeftConfig lora;
  lora.method = "lora";
  lora.init_from = dir.string();
  lora.rank = value_of(config, "r", lora.rank, file);
  lora.alpha = value_of(config, "lora_alpha", lora.alpha, file);
  lora.dropout = value_of(config, "lora_dropout", lora.dropout, file);
  lora.rslora = value_of(config, "use_rslora", false, file);
  read_targets(config, lora, file);
  FSLLM_CHECK(lora.rank >= 1 && lora.dropout >= 0 && lora.dropout < 1 && lora.alpha > 0,
              "{}: r = {}, lora_alpha = {}, lora_dropout = {} (impossible). Export the adapter again.",
              file.string(), lora.rank, lora.alpha, lora.dropout);
  return lora;
}

TensorMap read_adapter_tensors(fs::path const& dir, TensorMap const& expected) {
  SafetensorsReader const reader(dir, "adapter_model");
  TensorMap tensors;
  for (auto const& name : reader.names())
    FSLLM_CHECK(
        expected.count(name) != 0,
        "{}: unexpected tensor {} (the adapter belongs to other modules or another model). Use its own "
        "base model.",
        reader.file_of(name), name);
  for (auto const& [name, tensor] : expected) {
    FSLLM_CHECK(reader.contains(name),
                "{} lacks the tensor {} (its adapter_config.json asks for it). Export the adapter again.",
                dir.string(), name);
    auto const shape = reader.shape(name);
    FSLLM_CHECK(tensor.sizes() == at::IntArrayRef(shape),
                "{}: {} has shape [{}] (this model and rank need [{}]). Use the adapter's own base model.",
                reader.file_of(name), name, fmt::join(shape, ", "), fmt::join(tensor.sizes(), ", "));
    tensors.emplace(name, reader.tensor(name).to(tensor.device(), at::kFloat));
  }
  return tensors;
}

void save_adapter(fs::path const& dir, Peft const& peft, TensorMap const& values,
                  std::string const& base_model) {
  check_same_layout(peft.state(), values, "exported adapter");
  std::error_code error;
  fs::create_directories(dir, error);
  FSLLM_CHECK(!error, "cannot make the folder {} ({}). Choose another place.", dir.string(), error.message());
  auto config = peft.adapter_config();
  config["base_model_name_or_path"] = base_model;
  write_safetensors(dir / "adapter_model.safetensors", values);
  write_file_atomic(dir / "adapter_config.json", config.dump(2) + "\n");
}

}  // namespace fsllm
