// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace fsllm::detail {

/// The fields of one JSON object of a request. What is wrong, and at the end what nothing has read, is an
/// HttpError 400 that names the field. null counts as absent, as OpenAI's clients write it.
class RequestFields {
 public:
  explicit RequestFields(std::string_view body);

  bool has(char const* name);
  /// The value of a field that is there.
  nlohmann::json const& at(char const* name);
  /// Whole numbers and numbers in [low, high].
  int64_t integer(char const* name, int64_t fallback, int64_t low, int64_t high);
  double number(char const* name, double fallback, double low, double high);
  bool flag(char const* name, bool fallback);
  std::string text(char const* name, std::string const& fallback);
  /// Refuses the fields that nothing has asked for, unless they are known to change no token, or have the
  /// value that changes nothing.
  void finish();

 private:
  nlohmann::json json_;
  std::set<std::string> known_;
};

/// A value for messages, cut.
std::string shown(nlohmann::json const& value);

}  // namespace fsllm::detail
