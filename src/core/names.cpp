// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/names.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace fsllm {
namespace {

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t const substituted = d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, substituted});
      bool const swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

bool has_any(std::string const& name, std::vector<std::string> const& words) {
  return std::any_of(words.begin(), words.end(),
                     [&](std::string const& word) { return name.find(word) != std::string::npos; });
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (auto& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

std::string nearest_name(std::string_view name, std::vector<std::string> const& known) {
  std::string best;
  size_t best_distance = std::min<size_t>(3, name.size() / 2) + 1;
  auto const asked = lower_case(name);
  for (auto const& candidate : known) {
    size_t const distance = edit_distance(asked, lower_case(candidate));
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, std::vector<std::string> const& known) {
  auto const nearest = nearest_name(name, known);
  if (!nearest.empty()) return fmt::format(" Did you mean '{}'?", nearest);
  if (known.empty()) return "";
  return fmt::format(" Known: {}.", fmt::join(known, ", "));
}

std::string did_you_mean_key(std::string const& path, std::vector<std::string> const& known) {
  auto const only = [&](auto const& fits) {
    std::string found;
    for (auto const& key : known) {
      if (!fits(key)) continue;
      if (!found.empty()) return std::string();
      found = key;
    }
    return found;
  };
  auto const section = path.substr(0, path.find('.') + 1), name = path.substr(path.rfind('.') + 1);
  auto const deeper =
      only([&](auto const& key) { return key.starts_with(section) && key.ends_with("." + name); });
  bool const same_word = !section.empty() && !deeper.empty();  // before a word that is only like it
  if (!same_word && !nearest_name(path, known).empty()) return did_you_mean(path, known);
  auto const elsewhere =
      only([&](auto const& key) { return path.ends_with("." + key) || key.ends_with("." + path); });
  if (!elsewhere.empty()) return fmt::format(" Did you mean '{}'? Check the indentation.", elsewhere);
  return deeper.empty() ? " See --describe for all keys." : fmt::format(" Did you mean '{}'?", deeper);
}

}  // namespace fsllm
