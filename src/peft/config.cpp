// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/paths.hpp"
#include "methods.hpp"

namespace fsllm {
namespace {

using namespace detail;

std::string const kMethod = kArgs + ".adapter_method";

/// Arguments of PEFT that every method has.
void read_common(Arguments& arguments) {
  arguments.only("task_type", std::string("CAUSAL_LM"), "PEFT's name of the task.");
  arguments.only("modules_to_save", std::vector<std::string>{},
                 "Modules trained and saved whole beside the adapter.");
  for (auto const* name : {"fan_in_fan_out", "inference_mode"})
    arguments.get(name, false, "Accepted; the program knows by itself.");
}

/// The method's name in the YAML, and what AdapterHub's defaults are where its package is meant.
HubMethod asked_method(Config& config, bool use) {
  auto const package = config.get(
      kArgs + ".adapter_package", "peft",
      "Library whose method names and defaults are meant: peft, or adapterhub (FS-LLM's other one).");
  auto const method =
      config.get(kMethod, "lora", fmt::format("Adapter method. {}.", named_with_meaning(peft_table())));
  if (!use) return {};
  auto const where = config.where(kArgs + ".adapter_package");
  FSLLM_CHECK(package == "peft" || package == "adapterhub", "{} = '{}' (not a known name).{}", where, package,
              did_you_mean(package, {"peft", "adapterhub"}));
  if (package == "adapterhub") return find_hub_method(method, config.where(kMethod));
  return {find_peft(method, config.where(kMethod)).name, nlohmann::ordered_json::object()};
}

bool has_default(Config const& config, std::string const& path) {
  auto const keys = config.keys();
  auto const key = std::ranges::find(keys, path, &KeyInfo::path);
  return key != keys.end() && config.text(path) == key->default_value();
}

/// Declares the arguments of the other methods; which of them the YAML gives in vain goes into the log. A
/// resolved configuration gives all of them, with their defaults.
void read_others(Config& config, std::string const& method, Arguments const& chosen) {
  for (auto const& row : peft_table()) {
    if (row.name == method) continue;
    PeftConfig unused;
    Arguments other(config, {}, nlohmann::ordered_json::object());
    row.build.read(other, unused);
  }
  std::set<std::string> read(chosen.names().begin(), chosen.names().end());
  read.insert({"adapter_package", "adapter_method"});
  for (auto const& key : config.keys())
    if (key.path.starts_with(kArgs + ".") && !read.contains(key.path.substr(kArgs.size() + 1)))
      config.leave_out(key.path);
  // PEFT's names, with one value each.
  for (auto const* name : {"task_type", "modules_to_save", "fan_in_fan_out", "inference_mode"})
    config.leave_out(fmt::format("{}.{}", kArgs, name));
  for (auto const& name : config.children(kArgs))
    if (read.count(name) == 0 && !has_default(config, fmt::format("{}.{}", kArgs, name)))
      log_info("{}.{} has no meaning for adapter_method {}", kArgs, name, method);
}

/// Which method goes on from the saved adapter; the YAML must not ask for another.
std::string method_of(SavedConfig const& saved, std::string const& asked, Config const& config) {
  auto const* row = find_peft_type(saved.json.value("peft_type", ""));
  auto goes_on = row->build.continued_as.empty() ? row->name : row->build.continued_as;
  for (auto const& other : peft_table())  // bitfit and lora share PEFT's type
    if (other.name == asked && config.has(kMethod) && other.build.peft_type == row->build.peft_type &&
        other.build.continued_as.empty())
      goes_on = asked;
  FSLLM_CHECK(!config.has(kMethod) || asked == goes_on,
              "{} = '{}' (the adapter of llm.adapter.init_from, {}, is of type {} and goes on as '{}'{}). "
              "Change it or start from another adapter.",
              config.where(kMethod), asked, saved.dir, row->build.peft_type, goes_on,
              goes_on == row->name ? "" : ": PEFT saves what the encoder made, not the encoder");
  return goes_on;
}

}  // namespace

PeftConfig load_peft_config(Config& config) {
  PeftConfig peft;
  bool const use =
      config.get("llm.adapter.use", false, "Train an adapter instead of all parameters of the model.");
  peft.init_from = get_path(config, "llm.adapter.init_from", "", "PEFT adapter folder to start from.");
  peft.mv_to_cpu = config.get("llm.adapter.mv_to_cpu", false,
                              "Keep adapters, optimiser state and gradients of resting clients off the GPU, "
                              "and give the memory back.");
  FSLLM_CHECK(config.list_size("llm.adapter.args") <= 1,
              "llm.adapter.args has {} entries (one adapter is trained). Leave one.",
              config.list_size("llm.adapter.args"));
  FSLLM_CHECK(use || peft.init_from.empty(),
              "{} = '{}' (llm.adapter.use is False). Set llm.adapter.use: True.",
              config.where("llm.adapter.init_from"), peft.init_from);
  auto const asked = asked_method(config, use);
  if (!use) {
    auto const said = config.text("llm.adapter.use").value_or("");
    FSLLM_CHECK(
        config.children(kArgs).empty() || !said.empty(),
        "{} (llm.adapter.use is not set: the whole model would be trained). Add llm.adapter.use: True, or "
        "False where that is meant.",
        config.where(kArgs + "." + config.children(kArgs).front()));
    if (!config.children(kArgs).empty()) log_info("llm.adapter.args is not used: llm.adapter.use is False");
    config.accept_all_under(kArgs);
    return {};
  }
  peft.method = asked.method;
  SavedConfig saved;
  if (!peft.init_from.empty()) {
    saved = read_saved_config(peft.init_from);
    peft.method = method_of(saved, asked.method, config);
  }
  Arguments arguments(config, std::move(saved), asked.presets);
  read_common(arguments);
  peft.options = find_peft(peft.method, config.where(kMethod)).build.read(arguments, peft);
  read_others(config, peft.method, arguments);
  return peft;
}

PeftConfig read_adapter_config(std::filesystem::path const& dir) {
  auto const saved = read_saved_config(dir);
  auto nothing_given = Config::parse("", "");
  PeftConfig peft;
  peft.init_from = dir.string();
  peft.method = method_of(saved, "", nothing_given);
  Arguments arguments(nothing_given, saved, nlohmann::ordered_json::object());
  arguments.refuse_saved(
      {"modules_to_save", "exclude_modules", "target_parameters", "trainable_token_indices"});
  peft.options = find_peft(peft.method, kMethod).build.read(arguments, peft);
  return peft;
}

}  // namespace fsllm
