// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>

#include "config_yaml.hpp"
#include "fsllm/core/config.hpp"

namespace fsllm {

std::string detail::listed(std::vector<std::string> const& choices) {
  std::vector<std::string> shown = choices;
  std::replace(shown.begin(), shown.end(), std::string(), std::string("''"));
  return fmt::format("{}", fmt::join(shown, ", "));
}

Constraint at_least(double low) {
  return {fmt::format("at least {}", low), [low](double x) { return x >= low; }, {}, low};
}
Constraint more_than(double low) {
  return {fmt::format("more than {}", low), [low](double x) { return x > low; }, {}, low, {}, true};
}
Constraint within(double low, double high) {
  return {fmt::format("in [{}, {}]", low, high),
          [low, high](double x) { return x >= low && x <= high; },
          {},
          low,
          high};
}
Constraint within_open(double low, double high) {
  return {fmt::format("in [{}, {})", low, high),
          [low, high](double x) { return x >= low && x < high; },
          {},
          low,
          high,
          false,
          true};
}
Constraint one_of(std::vector<std::string> choices) {
  return {"one of " + detail::listed(choices), {}, std::move(choices)};
}

}  // namespace fsllm
