// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "methods.hpp"

namespace fsllm {
namespace {

std::string const kArgs = "llm.adapter.args[0]";

void check_package(Config& config) {
  auto const key = kArgs + ".adapter_package";
  auto const package = config.get(key, "peft", "Library whose methods and file formats are meant: peft.");
  FSLLM_CHECK(package != "adapterhub", "{} = 'adapterhub' (not available in this version). Use 'peft'.",
              config.where(key));
  FSLLM_CHECK(package == "peft", "{} = '{}' (not a known name).{}", config.where(key), package,
              did_you_mean(package, {"peft", "adapterhub"}));
}

/// PEFT arguments of which one value alone is built; others would silently train something else.
void check_fixed_arguments(Config& config) {
  auto const refuse = [&](std::string const& name, std::string const& value, std::string const& only) {
    auto const key = kArgs + "." + name;
    FSLLM_CHECK(value == only, "{} = '{}' (not available in this version). Use {}.", config.where(key), value,
                only);
  };
  auto const yes_no = [](bool value) { return std::string(value ? "True" : "False"); };
  refuse("bias", config.get(kArgs + ".bias", "none", "Which biases LoRA trains: none."), "none");
  refuse("task_type", config.get(kArgs + ".task_type", "CAUSAL_LM", "PEFT's name of the task."), "CAUSAL_LM");
  refuse("use_dora", yes_no(config.get(kArgs + ".use_dora", false, "Weight-decomposed LoRA.")), "False");
  refuse("init_lora_weights",
         yes_no(config.get(kArgs + ".init_lora_weights", true, "A Kaiming-uniform and B zero.")), "True");
  auto const saved = config.get(kArgs + ".modules_to_save", std::vector<std::string>{},
                                "Modules trained and saved whole beside the adapter.");
  refuse("modules_to_save", fmt::format("[{}]", fmt::join(saved, ", ")), "[]");
  config.get(kArgs + ".fan_in_fan_out", false, "Accepted; the model's own layout decides.");
  config.get(kArgs + ".inference_mode", false, "Accepted; adapters train here.");
}

PeftConfig read_lora_arguments(Config& config) {
  PeftConfig lora;
  lora.rank = config.get(kArgs + ".r", lora.rank, "LoRA rank r (Hu et al. 2021, section 4.1).", at_least(1));
  lora.alpha = config.get(kArgs + ".lora_alpha", lora.alpha, "LoRA updates are scaled by lora_alpha / r.",
                          more_than(0));
  lora.dropout =
      config.get(kArgs + ".lora_dropout", lora.dropout,
                 "Probability of dropping an input of a LoRA branch in training.", within_open(0, 1));
  lora.rslora =
      config.get(kArgs + ".use_rslora", lora.rslora, "Scale by lora_alpha / sqrt(r) (rank-stabilised LoRA).");
  lora.target_modules =
      config.get(kArgs + ".target_modules", lora.target_modules,
                 "Modules to adapt, by the end of their path, or [all-linear]; [] takes PEFT's defaults.");
  return lora;
}

template <class T>
std::string shown(T const& value) {
  return fmt::format("{}", value);
}
std::string shown(std::vector<std::string> const& names) {
  return fmt::format("[{}]", fmt::join(names, ", "));
}

/// Takes `saved` where the YAML is silent; where it speaks, both must say the same.
template <class T>
void agree(Config const& config, std::string const& name, T& given, T const& saved, std::string const& dir) {
  auto const key = kArgs + "." + name;
  FSLLM_CHECK(
      !config.has(key) || given == saved,
      "{} = {} (the adapter of llm.adapter.init_from, {}, has {}). Remove the key or start from another "
      "adapter.",
      config.where(key), shown(given), dir, shown(saved));
  given = saved;
}

void merge_saved(Config const& config, PeftConfig& lora, PeftConfig const& saved) {
  auto const dir = saved.init_from;
  agree(config, "r", lora.rank, saved.rank, dir);
  agree(config, "lora_alpha", lora.alpha, saved.alpha, dir);
  agree(config, "lora_dropout", lora.dropout, saved.dropout, dir);
  agree(config, "use_rslora", lora.rslora, saved.rslora, dir);
  // Saved adapters list the names that all-linear stood for; their tensors show whether those are all.
  if (lora.target_modules == std::vector<std::string>{"all-linear"}) return;
  auto targets = saved.target_pattern.empty() ? saved.target_modules : std::vector{saved.target_pattern};
  std::sort(targets.begin(), targets.end());
  std::sort(lora.target_modules.begin(), lora.target_modules.end());
  agree(config, "target_modules", lora.target_modules, targets, dir);
  lora.target_modules = saved.target_modules;
  lora.target_pattern = saved.target_pattern;
}

}  // namespace

PeftConfig load_peft_config(Config& config) {
  bool const use =
      config.get("llm.adapter.use", false, "Train an adapter instead of all parameters of the model.");
  auto const init_from = config.get("llm.adapter.init_from", "", "PEFT adapter folder to start from.");
  bool const mv_to_cpu =
      config.get("llm.adapter.mv_to_cpu", false, "Keep adapters of resting clients in host memory.");
  FSLLM_CHECK(config.list_size("llm.adapter.args") <= 1,
              "llm.adapter.args has {} entries (one adapter is trained). Leave one.",
              config.list_size("llm.adapter.args"));
  FSLLM_CHECK(use || init_from.empty(), "{} = '{}' (llm.adapter.use is False). Set llm.adapter.use: True.",
              config.where("llm.adapter.init_from"), init_from);
  auto const method_key = kArgs + ".adapter_method";
  if (use) check_package(config);
  auto const method = config.get(method_key, "lora", "Adapter method: lora.");
  if (!use) {
    config.accept_all_under(kArgs);
    return {};
  }
  detail::find_peft(method, config.where(method_key));
  check_fixed_arguments(config);
  auto lora = read_lora_arguments(config);
  lora.method = method;
  lora.mv_to_cpu = mv_to_cpu;
  lora.init_from = init_from;
  if (!init_from.empty()) {
    auto const saved = read_adapter_config(init_from);
    agree(config, "adapter_method", lora.method, saved.method, init_from);
    merge_saved(config, lora, saved);
  }
  return lora;
}

}  // namespace fsllm
