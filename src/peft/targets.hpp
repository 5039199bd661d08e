// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fsllm/model/causal_lm.hpp"

namespace fsllm::detail {

/// Which modules a method adapts: by the end of their paths, or by a regular expression for whole paths.
struct Targets {
  std::vector<std::string> names;  ///< {"all-linear"} for every projection
  std::string pattern;
  bool operator==(Targets const&) const = default;
  bool empty() const { return names.empty() && pattern.empty(); }
  bool all_linear() const { return names == std::vector<std::string>{"all-linear"}; }
};

/// A number for the modules whose path matches; the first match counts.
using Patterns = std::vector<std::pair<std::string, double>>;

/// What a name or pattern that selects nothing is called in messages, and where it comes from: a saved
/// adapter may name modules that this model lacks, if not all; a typo in a YAML is not that.
struct TargetCheck {
  std::string argument = "target_modules";
  std::string adapter_dir = {};  ///< of the saved adapter
  bool vocabulary = false;       ///< head and embedding may be named too
};

/// PEFT's rule: a module is a target if its path is a name or ends with ".name", or if the whole path matches
/// the pattern. `argument` is what messages call the targets.
bool matches(Targets const& targets, std::string const& module, std::string const& argument);

class Arguments;
/// target_modules, which several methods have.
Targets read_target_modules(Arguments& arguments);

/// As adapter_config.json has them: sorted names, or the pattern.
nlohmann::ordered_json json_of(Targets const& targets);

/// Without names and pattern: `defaults`. "all-linear" becomes the names that it stands for.
Targets resolve_targets(Targets const& given, std::vector<std::string> const& defaults, CausalLM& model);

/// The model's modules that match(), in layer order, with `vocabulary` the head at last; none at all is an
/// Error, unless the embedding is one.
std::vector<Linear*> find_targets(Targets const& targets, CausalLM& model, TargetCheck const& check = {});

/// The number of the first pattern that matches the end of the module's path, else `fallback` (PEFT's
/// rank_pattern and alpha_pattern); `argument` is what messages call them.
double number_for(Patterns const& patterns, std::string const& module, double fallback,
                  std::string const& argument);

/// The number behind the part of a path that matches `pattern` ("layers" in "model.layers.3.mlp"), as PEFT's
/// layers_pattern is meant; `argument` is what messages call it.
std::optional<int64_t> number_behind(std::string const& pattern, std::string const& module,
                                     std::string const& argument);

}  // namespace fsllm::detail
