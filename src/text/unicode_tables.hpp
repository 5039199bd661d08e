// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>

namespace fsllm {

// Where the Unicode versions behind Hugging Face's `tokenizers` differ from those of PCRE2 and utf8proc, so
// that ids do not depend on the age of our libraries. Ranges are inclusive and ordered.

struct CodePointRange {
  char32_t first, last;
};
struct CategoryRange {
  char32_t first, last;
  char const* category;  ///< "Lu"
};
struct LowerRange {
  char32_t first, last;
  int32_t distance;  ///< from a character to its lower case
};

/// Characters that PCRE2 does not know yet.
std::span<CategoryRange const> newer_characters();
/// Characters that normal forms leave alone there, and do not reorder or combine.
std::span<CodePointRange const> unknown_to_normal_forms();
/// Characters that extend a grapheme cluster there already.
std::span<CodePointRange const> newer_extending();
/// Characters that have a lower case there already.
std::span<LowerRange const> newer_lower_case();

/// The range that holds `c`, or null.
template <class Range>
Range const* find_range(std::span<Range const> ranges, char32_t c) {
  auto const found =
      std::partition_point(ranges.begin(), ranges.end(), [c](auto const& r) { return r.last < c; });
  return found == ranges.end() || found->first > c ? nullptr : &*found;
}

}  // namespace fsllm
