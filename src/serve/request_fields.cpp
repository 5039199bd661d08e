// SPDX-License-Identifier: Apache-2.0
#include "request_fields.hpp"

#include <fmt/core.h>

#include <cmath>

#include "fsllm/core/json_text.hpp"
#include "fsllm/core/names.hpp"
#include "fsllm/serve/completion_request.hpp"

namespace fsllm::detail {
namespace {

using nlohmann::json;

/// OpenAI's fields that are not built, with the value that means nothing of it is wanted; null: they change
/// no token, whatever they hold.
struct Neutral {
  char const* name;
  char const* value;
};
constexpr Neutral kNeutral[] = {
    {"user", nullptr},
    {"metadata", nullptr},
    {"store", nullptr},
    {"service_tier", nullptr},
    {"safety_identifier", nullptr},
    {"prompt_cache_key", nullptr},
    {"parallel_tool_calls", nullptr},
    {"presence_penalty", "0"},
    {"frequency_penalty", "0"},
    {"logit_bias", "{}"},
    {"suffix", "\"\""},
    {"tools", "[]"},
    {"functions", "[]"},
    {"tool_choice", "\"none\""},
    {"response_format", R"({"type":"text"})"},
    {"modalities", R"(["text"])"},
};

}  // namespace

std::string shown(json const& value) {
  auto text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 60 ? text : text.substr(0, 60) + "…";
}

RequestFields::RequestFields(std::string_view body) {
  if (json_depth(body) > kDeepestJson)
    throw HttpError(400, fmt::format("the body has brackets {} deep in one another ({} at most). Correct it.",
                                     json_depth(body), kDeepestJson));
  json_ = json::parse(body, nullptr, false);
  if (!json_.is_object())
    throw HttpError(400, "the body is not a JSON object (it cannot be read as one). Send one, in UTF-8.");
}

bool RequestFields::has(char const* name) {
  known_.insert(name);
  auto const found = json_.find(name);
  return found != json_.end() && !found->is_null();
}

json const& RequestFields::at(char const* name) {
  if (!has(name)) throw HttpError(400, fmt::format("'{}' is missing. Add it.", name), name);
  return json_[name];
}

int64_t RequestFields::integer(char const* name, int64_t fallback, int64_t low, int64_t high) {
  if (!has(name)) return fallback;
  auto const& value = json_[name];
  bool const fits = value.is_number_integer() && value.get<double>() >= static_cast<double>(low) &&
                    value.get<double>() <= static_cast<double>(high);
  // Numbers near 2^63 are no int64_t, though as doubles they look like the limit.
  bool const exact = fits && (!value.is_number_unsigned() || value.get<uint64_t>() <= uint64_t{INT64_MAX});
  if (!exact || value.get<int64_t>() < low || value.get<int64_t>() > high)
    throw HttpError(400,
                    fmt::format("'{}' = {} (a whole number from {} to {} is needed). Correct it.", name,
                                shown(value), low, high),
                    name);
  return value.get<int64_t>();
}

double RequestFields::number(char const* name, double fallback, double low, double high) {
  if (!has(name)) return fallback;
  auto const& value = json_[name];
  double const number = value.is_number() ? value.get<double>() : NAN;
  if (!std::isfinite(number) || number < low || number > high)
    throw HttpError(400,
                    fmt::format("'{}' = {} (a number from {} to {} is needed). Correct it.", name,
                                shown(value), low, high),
                    name);
  return number;
}

bool RequestFields::flag(char const* name, bool fallback) {
  if (!has(name)) return fallback;
  if (!json_[name].is_boolean())
    throw HttpError(
        400, fmt::format("'{}' = {} (true or false is needed). Correct it.", name, shown(json_[name])), name);
  return json_[name].get<bool>();
}

std::string RequestFields::text(char const* name, std::string const& fallback) {
  if (!has(name)) return fallback;
  if (!json_[name].is_string())
    throw HttpError(400, fmt::format("'{}' = {} (a text is needed). Correct it.", name, shown(json_[name])),
                    name);
  return json_[name].get<std::string>();
}

void RequestFields::finish() {
  for (auto const& [name, value] : json_.items()) {
    if (known_.contains(name) || value.is_null()) continue;
    auto const row =
        std::find_if(std::begin(kNeutral), std::end(kNeutral),
                     [&, key = std::string_view(name)](Neutral const& each) { return each.name == key; });
    if (row == std::end(kNeutral)) {
      auto const hint = did_you_mean(name, {known_.begin(), known_.end()});
      throw HttpError(
          400,
          fmt::format("'{:.40}' (no field of this request).{}", name,
                      nearest_name(name, {known_.begin(), known_.end()}).empty() ? " Remove it." : hint),
          name);
    }
    if (row->value != nullptr && value != json::parse(row->value))
      throw HttpError(
          400,
          fmt::format("'{}' = {} (this server has {} alone). Remove it.", name, shown(value), row->value),
          name);
  }
}

}  // namespace fsllm::detail
