// SPDX-License-Identifier: Apache-2.0
// LoRA's arguments: read from YAML and adapter_config.json, and written.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fsllm/core/error.hpp"
#include "lora.hpp"

namespace fsllm::detail {
namespace {

/// Keys of saved adapters that change what a LoRA computes and that are not built.
std::vector<std::string> const kRefused = {"lora_bias",   "layer_replication", "use_qalora",
                                           "use_bdlora",  "arrow_config",      "alora_invocation_tokens",
                                           "kasa_config", "monteclora_config"};

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

/// How PEFT starts an adapter, and whether the base model has its own weights then.
struct Start {
  char const* name;
  bool changes_base;
};
constexpr Start kStarts[] = {{"true", false},       {"false", false}, {"gaussian", false}, {"eva", false},
                             {"orthogonal", false}, {"mica", false},  {"pissa", true},     {"olora", true},
                             {"corda", true},       {"loftq", true},  {"lora_ga", true}};

/// What a saved adapter started from is over, unless the base model changed with it: PEFT takes what an
/// adapter of principal components stands for out of the weights (peft tuners/lora/layer.py).
void check_saved_start(std::string const& start, std::string const& file) {
  for (auto const& [name, changes_base] : kStarts) {
    bool const variant = changes_base && start.starts_with(name + std::string("_"));  // pissa_niter_16
    if (start != name && !variant) continue;
    FSLLM_CHECK(!changes_base,
                "{}: 'init_lora_weights' = '{}' (the adapter belongs to base weights that PEFT changes when "
                "it starts one of this "
                "kind, not to those of the model). Save it with peft's "
                "path_initial_model_for_weight_conversion, which makes an ordinary LoRA of it.",
                file, start);
    return;
  }
  fail(fmt::format("{}: 'init_lora_weights' = '{}' (not a start that PEFT knows). Export the adapter again.",
                   file, start));
}

bool read_gaussian(Arguments& arguments) {
  auto const start =
      arguments.word("init_lora_weights", "true",
                     "true: A Kaiming-uniform and B zero; gaussian: A from N(0, 1/r²), B zero. "
                     "Has no meaning for an adapter that is gone on from.");
  if (arguments.saved()) {
    check_saved_start(start, arguments.saved_file());
    return false;
  }
  FSLLM_CHECK(start == "true" || start == "gaussian",
              "{} = {} (not available in this version). Use true or gaussian.",
              arguments.where("init_lora_weights"), start);
  return start == "gaussian";
}

void check_layers(Arguments const& arguments, LoraOptions const& lora) {
  FSLLM_CHECK(lora.layers_patterns.empty() || !lora.layers.empty(),
              "{} = [{}] (layers_to_transform is empty: PEFT wants both). Set it too.",
              arguments.where("layers_pattern"), fmt::join(lora.layers_patterns, ", "));
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
  lora.layers_patterns = arguments.get(
      "layers_pattern", lora.layers_patterns,
      "Names (regular expressions) of the lists of blocks that layers_to_transform counts in; [] for any.");
  std::erase(lora.layers_patterns, "");
  check_layers(arguments, lora);
  lora.gaussian = read_gaussian(arguments);
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
  if (!options_.layers_patterns.empty()) json["layers_pattern"] = options_.layers_patterns;
  json["bias"] = options_.bias;
  json["fan_in_fan_out"] = fan_in_fan_out_;
  json["init_lora_weights"] = true;
  if (options_.gaussian) json["init_lora_weights"] = "gaussian";
  json["rank_pattern"] = object(options_.rank_pattern);
  json["alpha_pattern"] = object(options_.alpha_pattern);
  json["modules_to_save"] = nullptr;
  return json;
}

}  // namespace fsllm::detail

namespace fsllm {

void restrict_to_blocks(PeftConfig& config, std::vector<int64_t> const& blocks, std::string const& because) {
  auto* lora = std::any_cast<detail::LoraOptions>(&config.options);
  FSLLM_CHECK(
      lora != nullptr && config.method == "lora",
      "{}.adapter_method = {} with {} (whose adapter is of some blocks alone, as LoRA can be). Use lora.",
      detail::kArgs, config.method, because);
  FSLLM_CHECK(lora->bias == "none",
              "{}.bias = {} with {} (trained biases are not available there). Use none.", detail::kArgs,
              lora->bias, because);
  if (lora->layers.empty()) lora->layers = blocks;
  for (int64_t const block : lora->layers)
    FSLLM_CHECK(
        std::find(blocks.begin(), blocks.end(), block) != blocks.end(),
        "{}.layers_to_transform names block {} with {} (which trains {}). Leave it out, or name some of "
        "these.",
        detail::kArgs, block, because, fmt::join(blocks, ", "));
}

}  // namespace fsllm
