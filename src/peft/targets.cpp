// SPDX-License-Identifier: Apache-2.0
#include "targets.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "arguments.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/core/python_regex.hpp"

namespace fsllm::detail {
namespace {

bool names_module(std::string const& target, std::string const& module) {
  return module == target || module.ends_with("." + target);
}

/// The last parts of the paths, each once.
std::vector<std::string> last_names(std::vector<Linear*> const& linears) {
  std::set<std::string> names;
  for (auto const* linear : linears) names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  return {names.begin(), names.end()};
}

PythonRegex compile(std::string const& pattern, std::string const& argument) {
  return {pattern, fmt::format("{}.{}", kArgs, argument)};
}

std::vector<Linear*> match_names(Targets const& targets, std::vector<Linear*> const& linears, CausalLM& model,
                                 TargetCheck const& check) {
  std::vector<Linear*> found;
  std::set<std::string> used;
  for (auto* linear : linears) {
    bool matches = false;
    for (auto const& target : targets.names)
      if (names_module(target, linear->name)) {
        used.insert(target);
        matches = true;
      }
    if (matches) found.push_back(linear);
  }
  for (auto const& target : targets.names)
    if (check.vocabulary && names_module(target, model.config().embedding)) used.insert(target);
  for (auto const& target : targets.names)
    FSLLM_CHECK(used.count(target) != 0 || !check.adapter_dir.empty(),
                "{}.{} names '{}' (no module of this {} model).{}", kArgs, check.argument, target,
                model.config().family, did_you_mean(target, last_names(linears)));
  return found;
}

}  // namespace

bool matches(Targets const& targets, std::string const& module, std::string const& argument) {
  if (!targets.pattern.empty()) return compile(targets.pattern, argument).fullmatch(module);
  return std::any_of(targets.names.begin(), targets.names.end(),
                     [&](std::string const& name) { return names_module(name, module); });
}

Targets read_target_modules(Arguments& arguments) {
  return arguments.targets(
      "target_modules",
      "Modules to adapt: a list of ends of their paths, all-linear, or one regular expression for whole "
      "paths; [] takes PEFT's defaults for the method and family.");
}

nlohmann::ordered_json json_of(Targets const& targets) {
  if (!targets.pattern.empty()) return targets.pattern;
  auto names = targets.names;
  std::sort(names.begin(), names.end());
  return names;
}

Targets resolve_targets(Targets const& given, std::vector<std::string> const& defaults, CausalLM& model) {
  if (given.empty()) return {defaults, ""};
  bool const all = std::find(given.names.begin(), given.names.end(), "all-linear") != given.names.end();
  return all ? Targets{last_names(model.linears()), ""} : given;
}

std::vector<Linear*> find_targets(Targets const& targets, CausalLM& model, TargetCheck const& check) {
  auto linears = model.linears();
  if (check.vocabulary) linears.push_back(&model.head());
  std::vector<Linear*> found;
  if (targets.pattern.empty()) {
    found = match_names(targets, linears, model, check);
  } else {
    auto const expression = compile(targets.pattern, check.argument);
    for (auto* linear : linears)
      if (expression.fullmatch(linear->name)) found.push_back(linear);
  }
  bool const embedding = check.vocabulary && matches(targets, model.config().embedding, check.argument);
  FSLLM_CHECK(!found.empty() || embedding || check.adapter_dir.empty(),
              "{} adapts {} (this {} model has none of them, but {}). Give an adapter of this model, or the "
              "adapter's own model.",
              check.adapter_dir,
              targets.pattern.empty() ? fmt::format("{}", fmt::join(targets.names, ", ")) : targets.pattern,
              model.config().family, fmt::join(last_names(linears), ", "));
  FSLLM_CHECK(!found.empty() || embedding,
              "{}.{} matches no module (this {} model has {}). Name some of them.", kArgs, check.argument,
              model.config().family, fmt::join(last_names(linears), ", "));
  return found;
}

double number_for(Patterns const& patterns, std::string const& module, double fallback,
                  std::string const& argument) {
  for (auto const& [pattern, number] : patterns)
    if (compile("(.*\\.)?(" + pattern + ")$", argument).match(module)) return number;
  return fallback;
}

std::optional<int64_t> number_behind(std::string const& pattern, std::string const& module,
                                     std::string const& argument) {
  auto const list = compile("(?:.*?\\.)?(?:" + pattern + ")", argument);
  for (size_t end = module.find('.'); end != std::string::npos; end = module.find('.', end + 1)) {
    auto const digits = module.find_first_not_of("0123456789", end + 1) - end - 1;
    bool const number = digits >= 1 && digits <= 9 && module[end + 1 + digits] == '.';
    if (number && list.fullmatch(module.substr(0, end))) return std::stoll(module.substr(end + 1, digits));
  }
  return {};
}

}  // namespace fsllm::detail
