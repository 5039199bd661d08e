// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <regex>
#include <set>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"
#include "lora.hpp"

namespace fsllm::detail {
namespace {

constexpr char const* kKey = "llm.adapter.args[0].target_modules";

bool names_module(std::string const& target, std::string const& module) {
  return module == target || module.ends_with("." + target);
}

/// The last parts of the paths, each once.
std::vector<std::string> last_names(std::vector<Linear*> const& linears) {
  std::set<std::string> names;
  for (auto const* linear : linears) names.insert(linear->name.substr(linear->name.rfind('.') + 1));
  return {names.begin(), names.end()};
}

std::vector<Linear*> match_pattern(std::string const& pattern, std::vector<Linear*> const& linears) {
  std::vector<Linear*> found;
  try {
    std::regex const expression(pattern);
    for (auto* linear : linears)
      if (std::regex_match(linear->name, expression)) found.push_back(linear);
  } catch (std::regex_error const& error) {
    fail(fmt::format("{} = '{}' (not a regular expression: {}). Correct it.", kKey, pattern, error.what()));
  }
  return found;
}

}  // namespace

std::vector<std::string> target_names(PeftConfig const& config, CausalLM& model) {
  if (!config.target_pattern.empty()) return {};
  auto const& given = config.target_modules;
  if (given.empty()) return model.config().lora_targets;
  bool const all = std::find(given.begin(), given.end(), "all-linear") != given.end();
  return all ? last_names(model.linears()) : given;
}

std::vector<Linear*> find_targets(PeftConfig const& config, CausalLM& model) {
  auto const linears = model.linears();
  auto const targets = target_names(config, model);
  auto const known = last_names(linears);
  std::vector<Linear*> found;
  if (!config.target_pattern.empty()) {
    found = match_pattern(config.target_pattern, linears);
  } else {
    std::set<std::string> used;
    for (auto* linear : linears) {
      bool matches = false;
      for (auto const& target : targets)
        if (names_module(target, linear->name)) {
          used.insert(target);
          matches = true;
        }
      if (matches) found.push_back(linear);
    }
    // PEFT lets an adapter name modules that this model lacks as long as one matches; a typo in a YAML is not
    // that.
    for (auto const& target : targets)
      FSLLM_CHECK(used.count(target) != 0 || !config.init_from.empty(),
                  "{} names '{}' (no module of this {} model).{}", kKey, target, model.config().family,
                  did_you_mean(target, known));
  }
  FSLLM_CHECK(!found.empty(), "{} matches no module (this {} model has {}). Name some of them.", kKey,
              model.config().family, fmt::join(known, ", "));
  return found;
}

}  // namespace fsllm::detail
