// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/names.hpp"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace fsllm {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t const substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_name(std::string_view name, std::vector<std::string> const& known) {
  std::string best;
  size_t best_distance = std::min<size_t>(3, name.size() / 2) + 1;
  for (auto const& candidate : known) {
    size_t const distance = edit_distance(name, candidate);
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

}  // namespace fsllm
