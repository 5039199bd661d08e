// SPDX-License-Identifier: Apache-2.0
// What is wrong with a configuration: kept, and told at once.
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "config_state.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {

using detail::is_under;
using detail::place_of;
using detail::YamlEntry;

namespace {

/// A key without a value is likelier forgotten than meant.
void report_default(std::string const& place, KeyInfo const& key) {
  static std::set<std::string> const empty{"''", "[]", "{}"};
  if (empty.count(key.default_text) == 0)
    log_info("{}: nothing stands behind it, its default is used: {}", place, key.default_text);
}

}  // namespace

void Config::keep_mistake(std::string const& message) {
  auto& kept = state_->mistakes;
  if (std::find(kept.begin(), kept.end(), message) == kept.end()) kept.push_back(message);
}

void Config::part(std::function<void()> const& read) {
  auto const before = state_->mistakes.size();
  state_->collects = true;
  try {
    read();
  } catch (Error const& error) {
    state_->cut_short = true;
    if (state_->mistakes.size() == before) keep_mistake(error.what());
  }
  state_->collects = false;
}

void Config::report() const {
  auto const& kept = state_->mistakes;
  if (kept.size() == 1) fail(kept.front());
  FSLLM_CHECK(kept.empty(), "{} mistakes in the configuration. Correct them.\n  {}", kept.size(),
              fmt::join(kept, "\n  "));
}

bool Config::was_cut_short() const {
  return state_->cut_short;
}

void Config::declare_as(Config const& other) {
  for (auto const& key : other.state_->declared)
    if (state_->declared_at.emplace(key.path, state_->declared.size()).second) {
      state_->declared.push_back(key);
      state_->resolved.emplace_back(key.path, key.default_text);
    }
  state_->accepted_prefixes.insert(other.state_->accepted_prefixes.begin(),
                                   other.state_->accepted_prefixes.end());
}

void Config::leave_out(std::string const& prefix) {
  state_->left_out.insert(prefix);
}

/// Fails where nobody asked for a key that is given.
void Config::check_known(std::string const& path, std::vector<std::string> const& known) const {
  auto const& entry = state_->given.entries.at(path);
  if (auto const key = state_->declared_at.find(path); key != state_->declared_at.end()) {
    if (entry.kind == YamlEntry::Kind::null)
      report_default(place_of(path, entry), state_->declared[key->second]);
    return;
  }
  auto const& accepted = state_->accepted_prefixes;
  if (std::any_of(accepted.begin(), accepted.end(),
                  [&](auto const& p) { return path == p || is_under(path, p); }))
    return;
  bool const section =
      std::any_of(known.begin(), known.end(), [&](auto const& key) { return is_under(key, path); });
  if (section && !entry.problem.empty()) fail(entry.problem);
  if (section && entry.kind == YamlEntry::Kind::null) {
    log_info("{}: nothing stands behind it, the defaults of its keys hold", place_of(path, entry));
    return;
  }
  if (section && entry.kind == YamlEntry::Kind::list && entry.items.empty()) return;
  FSLLM_CHECK(!section,
              "{} is given as a value (it is a section with keys below it). Write KEY: VALUE lines below it; "
              "--describe {} lists them.",
              place_of(path, entry), path);
  // A key below a single value is that value's mistake.
  if (std::any_of(known.begin(), known.end(), [&](auto const& key) { return is_under(path, key); }) &&
      !state_->mistakes.empty())
    return;
  fail(fmt::format("{} (unknown key).{}", place_of(path, entry), did_you_mean_key(path, known)));
}

void Config::finish() {
  std::vector<std::string> known;
  for (auto const& key : state_->declared) known.push_back(key.path);
  for (auto const& path : state_->given.order) try {
      check_known(path, known);
    } catch (Error const& error) {
      keep_mistake(error.what());
    }
  report();
}

}  // namespace fsllm
