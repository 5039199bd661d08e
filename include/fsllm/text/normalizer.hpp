// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/text/regex.hpp"

namespace fsllm {

/// The `normalizer` of a tokenizer.json: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Strip,
/// Precompiled, Sequence.
class Normalizer {
 public:
  Normalizer() = default;
  /// `where` names the file; a construct that is not known is an Error that names it.
  Normalizer(nlohmann::json const& description, std::string const& where);
  bool empty() const { return steps_.empty(); }
  /// Changes `text` (valid UTF-8) in place.
  void apply(std::string& text, Regex::Memory& memory) const;
  /// True where apply() would surely leave the text alone: saves the copy.
  bool leaves_alone(std::string_view text) const;

 private:
  void add(nlohmann::json const& description, std::string const& where);
  std::vector<std::function<void(std::string&, Regex::Memory&)>> steps_;
  bool only_canonical_composition_ = true;
};

/// The Regex of `{"Regex": P}` or `{"String": S}` (S is taken literally).
Regex parse_pattern(nlohmann::json const& description, std::string const& where);

}  // namespace fsllm
