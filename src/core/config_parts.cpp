// SPDX-License-Identifier: Apache-2.0
// Maps of lists, and configurations made of others.
#include <fmt/ranges.h>

#include "config_state.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {

using detail::erase_tree;
using detail::is_under;
using detail::YamlEntry;

std::vector<std::pair<std::string, std::vector<std::string>>> Config::lists(std::string const& path,
                                                                            std::string const& doc) {
  constexpr char const* kHow = "names with lists are needed, as {train.optimizer.lr: [0.1, 0.01]}";
  FSLLM_CHECK(!holds_no_map(path) || text(path) == "", "{} is not a map ({}). Change it.", where(path), kHow);
  std::vector<std::pair<std::string, std::vector<std::string>>> values;
  std::vector<std::string> shown;
  for (auto const& given : state_->given.order) {
    if (!is_under(given, path)) continue;
    auto name = given.substr(path.size() + 1);
    if (name.ends_with(".type") && has(given.substr(0, given.rfind('.')) + ".choices")) continue;
    if (name.ends_with(".choices")) name.resize(name.rfind('.'));
    auto const& entry = state_->given.entries.at(given);
    FSLLM_CHECK(entry.kind == YamlEntry::Kind::list && !entry.items.empty(),
                "{} is not a list of values ({}). Change it.", where(given), kHow);
    std::vector<std::string> quoted;
    for (auto const& item : entry.items) quoted.push_back(detail::quote_yaml(item));
    shown.push_back(fmt::format("{}: [{}]", detail::quote_yaml(name), fmt::join(quoted, ", ")));
    values.emplace_back(std::move(name), entry.items);
  }
  declare_map({path, "map of lists", "{}", {}, doc}, shown);
  return values;
}

Config Config::overridden_by(Config const& over) const {
  Config copy;
  copy.state_->given = state_->given;
  copy.state_->accepted_prefixes = state_->accepted_prefixes;
  auto& given = copy.state_->given;
  for (auto const& [path, size] : over.state_->given.list_sizes) erase_tree(given, path);
  for (auto const& path : over.state_->given.order) erase_tree(given, path);
  for (auto const& path : over.state_->given.order)  // a text that gives way to a map
    for (auto dot = path.rfind('.'); dot != path.npos && dot > 0; dot = path.rfind('.', dot - 1))
      if (auto const above = path.substr(0, dot); given.entries.contains(above)) erase_tree(given, above);
  for (auto const& path : over.state_->given.order) {
    if (given.entries.insert_or_assign(path, over.state_->given.entries.at(path)).second)
      given.order.push_back(path);
  }
  for (auto const& [path, size] : over.state_->given.list_sizes)
    given.list_sizes.insert_or_assign(path, size);
  return copy;
}

Config Config::below(std::string const& key) const {
  Config part;
  for (auto const& path : state_->given.order) {
    if (!is_under(path, key) || path[key.size()] != '.') continue;
    auto const rest = path.substr(key.size() + 1);
    part.state_->given.entries.emplace(rest, state_->given.entries.at(path));
    part.state_->given.order.push_back(rest);
  }
  for (auto const& [path, size] : state_->given.list_sizes)
    if (is_under(path, key) && path[key.size()] == '.')
      part.state_->given.list_sizes.emplace(path.substr(key.size() + 1), size);
  return part;
}

}  // namespace fsllm
