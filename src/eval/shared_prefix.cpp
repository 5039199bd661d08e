// SPDX-License-Identifier: Apache-2.0
#include "shared_prefix.hpp"

#include <algorithm>

namespace fsllm::detail {
namespace {

/// A shorter prefix costs less than a second pass.
constexpr int64_t kShortestPrefix = 32;
/// A family is cut where its inputs' own tokens are this many times its prefix.
constexpr int64_t kOwnPerPrefix = 4;

int64_t common_length(ScoredInput const& a, ScoredInput const& b) {
  auto const common = std::ranges::mismatch(a.ids, b.ids).in1 - a.ids.begin();
  return std::min({common, a.first_wanted, b.first_wanted});
}

int64_t length_of(ScoredInput const& input) {
  return std::ssize(input.ids);
}

int64_t tokens_of(std::vector<ScoredInput> const& inputs, PrefixFamily const& family) {
  int64_t tokens = family.prefix;
  for (size_t i = family.first; i < family.end; ++i) tokens += length_of(inputs[i]) - family.prefix;
  return tokens;
}

/// A family in parts, each with enough own tokens.
std::vector<PrefixFamily> cut(std::vector<ScoredInput> const& inputs, PrefixFamily const& family,
                              int64_t batch_tokens) {
  int64_t const enough = std::max(batch_tokens, kOwnPerPrefix * family.prefix);
  std::vector<PrefixFamily> parts;
  int64_t own = 0;
  for (size_t i = family.first; i < family.end; ++i) {
    int64_t const tokens = length_of(inputs[i]) - family.prefix;
    if (parts.empty() || own + tokens > enough) {
      parts.push_back({i, i, family.prefix});
      own = 0;
    }
    own += tokens;
    parts.back().end = i + 1;
  }
  return parts;
}

}  // namespace

std::vector<PrefixFamily> prefix_families(std::vector<ScoredInput> const& inputs, ModelConfig const& config) {
  std::vector<PrefixFamily> families;
  for (size_t first = 0; first < inputs.size();) {
    PrefixFamily family{first, first + 1, 0};
    int64_t longest = length_of(inputs[first]);
    for (; family.end < inputs.size(); ++family.end) {
      auto const common = common_length(inputs[family.end - 1], inputs[family.end]);
      auto const prefix = family.prefix == 0 ? common : std::min(common, family.prefix);
      longest = std::max(longest, length_of(inputs[family.end]));
      bool const shared = prefix >= kShortestPrefix && 4 * prefix >= 3 * family.prefix &&
                          !config.rope_changes(prefix, longest);
      if (!shared) break;
      family.prefix = prefix;
    }
    families.push_back(family);
    first = family.end;
  }
  return families;
}

std::vector<std::vector<PrefixFamily>> family_batches(std::vector<ScoredInput> const& inputs,
                                                      std::vector<PrefixFamily> const& families,
                                                      int64_t batch_tokens) {
  std::vector<PrefixFamily> parts;
  for (auto const& family : families)
    for (auto const& part : cut(inputs, family, batch_tokens)) parts.push_back(part);
  // Families first, then inputs that share nothing, the longest first.
  std::ranges::stable_sort(parts, std::ranges::greater{}, [&](PrefixFamily const& part) {
    return std::pair(part.prefix > 0, part.prefix > 0 ? 0 : length_of(inputs[part.first]));
  });
  std::vector<std::vector<PrefixFamily>> batches;
  int64_t tokens = 0;
  for (auto const& part : parts) {
    auto const more = tokens_of(inputs, part);
    if (batches.empty() || tokens + more > batch_tokens) {
      batches.emplace_back();
      tokens = 0;
    }
    tokens += more;
    batches.back().push_back(part);
  }
  return batches;
}

}  // namespace fsllm::detail
