// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace fsllm::detail {

/// A config.json object that knows its file: every getter checks the type and names file and key.
/// A key that is null counts as absent.
class ConfigJson {
 public:
  ConfigJson(nlohmann::json object, std::string source);

  bool has(std::string const& key) const;
  bool is_null(std::string const& key) const;
  int64_t integer(std::string const& key) const;  ///< must be there
  int64_t integer(std::string const& key, int64_t fallback) const;
  /// A count from 1 to `largest`; larger ones are no real model and would overflow products of sizes.
  int64_t size(std::string const& key, int64_t largest = int64_t{1} << 28) const;
  int64_t size_or(std::string const& key, int64_t fallback, int64_t largest = int64_t{1} << 28) const;
  double number(std::string const& key, double fallback) const;
  double probability(std::string const& key, double fallback) const;  ///< in [0, 1)
  bool boolean(std::string const& key, bool fallback) const;
  std::string text(std::string const& key, std::string const& fallback) const;
  std::vector<std::string> texts(std::string const& key) const;
  std::vector<double> numbers(std::string const& key) const;  ///< a list that must be there
  /// [[["a", "b"], 2]] → a, b, a, b; at most `most` of them. Any other form is refused.
  std::vector<std::string> repeated_texts(std::string const& key, int64_t most) const;
  /// One token id or a list of them; empty when absent.
  std::vector<int32_t> token_ids(std::string const& key) const;
  /// The object below a key; empty when absent.
  ConfigJson object(std::string const& key) const;
  std::vector<std::string> object_keys() const;  ///< keys of objects below this one
  bool empty() const { return object_.empty(); }
  std::string const& source() const { return source_; }
  /// Fails with this file's name in front.
  [[noreturn]] void refuse(std::string const& message) const;

 private:
  nlohmann::json const* find(std::string const& key) const;
  nlohmann::json object_;
  std::string source_;
};

}  // namespace fsllm::detail
