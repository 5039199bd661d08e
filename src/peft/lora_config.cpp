// SPDX-License-Identifier: Apache-2.0
// LoRA's arguments: read from YAML and adapter_config.json, and written.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "lora.hpp"

namespace fsllm::detail {
namespace {

/// Keys of saved adapters that change what a LoRA computes and that are not built.
std::vector<std::string> const kRefused = {"lora_bias",     "layer_replication", "use_qalora",
                                           "use_bdlora",    "arrow_config",      "alora_invocation_tokens",
                                           "layers_pattern"};

/// Whole numbers without a point, as PEFT writes them.
nlohmann::ordered_json number(double value) {
  if (value == std::floor(value)) return static_cast<int64_t>(value);
  return value;
}

nlohmann::ordered_json object(Patterns const& patterns) {
  auto json = nlohmann::ordered_json::object();
  for (auto const& [pattern, value] : patterns) json[pattern] = number(value);
  return json;
}

void check_ranks(Arguments const& arguments, Patterns const& patterns) {
  for (auto const& [pattern, rank] : patterns)
    FSLLM_CHECK(rank == std::floor(rank), "{} = {}: {} (a whole number is needed). Change it.",
                arguments.where("rank_pattern"), pattern, rank);
}

}  // namespace

std::any read_lora(Arguments& arguments, PeftConfig&) {
  arguments.refuse_saved(kRefused);
  LoraOptions lora;
  lora.rank = arguments.get("r", lora.rank, "LoRA rank r (Hu et al. 2021, section 4.1).", at_least(1));
  lora.alpha =
      arguments.get("lora_alpha", lora.alpha, "LoRA updates are scaled by lora_alpha / r.", more_than(0));
  lora.dropout =
      arguments.get("lora_dropout", lora.dropout,
                    "Probability of dropping an input of a LoRA branch in training.", within_open(0, 1));
  lora.rslora =
      arguments.get("use_rslora", lora.rslora, "Scale by lora_alpha / sqrt(r) (rank-stabilised LoRA).");
  lora.dora = arguments.get("use_dora", lora.dora,
                            "Learn the norm of each output's weights apart (DoRA, Liu et al. 2024).");
  lora.bias = arguments.get("bias", lora.bias,
                            "Which biases of the model learn beside LoRA: those of adapted modules "
                            "(lora_only), all, none.",
                            one_of({"none", "all", "lora_only"}));
  lora.targets = read_target_modules(arguments);
  lora.layers =
      arguments.get("layers_to_transform", lora.layers, "Blocks to adapt, from 0; [] for all.", at_least(0));
  lora.rank_pattern = arguments.patterns(
      "rank_pattern", "Other ranks for modules whose path ends with a match of the regular expression.",
      at_least(1));
  lora.alpha_pattern = arguments.patterns("alpha_pattern", "The same for lora_alpha.", more_than(0));
  arguments.only("init_lora_weights", true, "A Kaiming-uniform and B zero.");
  check_ranks(arguments, lora.rank_pattern);
  return lora;
}

nlohmann::ordered_json Lora::adapter_config(std::string const&) const {
  nlohmann::ordered_json json;
  json["peft_type"] = "LORA";
  json["task_type"] = "CAUSAL_LM";
  json["inference_mode"] = true;
  json["r"] = options_.rank;
  json["lora_alpha"] = number(options_.alpha);
  json["lora_dropout"] = options_.dropout;
  json["use_rslora"] = options_.rslora;
  json["use_dora"] = options_.dora;
  json["target_modules"] = json_of(options_.targets);
  json["layers_to_transform"] = nullptr;
  if (!options_.layers.empty()) json["layers_to_transform"] = options_.layers;
  json["bias"] = options_.bias;
  json["fan_in_fan_out"] = fan_in_fan_out_;
  json["init_lora_weights"] = true;
  json["rank_pattern"] = object(options_.rank_pattern);
  json["alpha_pattern"] = object(options_.alpha_pattern);
  json["modules_to_save"] = nullptr;
  return json;
}

}  // namespace fsllm::detail
