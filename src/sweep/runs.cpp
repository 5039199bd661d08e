// SPDX-License-Identifier: Apache-2.0
#include "fsllm/sweep/runs.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/io/files.hpp"
#include "fsllm/io/jsonl.hpp"

namespace fsllm {
namespace {

namespace fs = std::filesystem;

constexpr size_t kLongestName = 120;
constexpr size_t kHashDigits = 8;

std::vector<Setting> grid_settings(std::vector<GridKey> const& grid) {
  std::vector<Setting> settings(1);
  for (auto const& row : grid) {
    std::vector<Setting> longer;
    for (auto const& setting : settings)
      for (auto const& value : row.values) {
        longer.push_back(setting);
        longer.back().emplace_back(row.key, value);
      }
    settings = std::move(longer);
  }
  return settings;
}

std::vector<std::string> keys_of(SweepSpec const& spec) {
  std::vector<std::string> keys;
  for (auto const& row : spec.grid) keys.push_back(row.key);
  for (auto const& row : spec.space) keys.push_back(row.key);
  return keys;
}

std::string last_parts(std::string const& key, int parts) {
  auto at = key.size();
  for (int i = 0; i < parts && at != std::string::npos && at > 0; ++i) at = key.rfind('.', at - 1);
  return at == std::string::npos || at == 0 ? key : key.substr(at + 1);
}

/// The last part of each key, or as many as tell it from the others.
std::map<std::string, std::string> short_names(std::vector<std::string> const& keys) {
  std::map<std::string, std::string> names;
  for (auto const& key : keys) {
    int parts = 1;
    auto const is_shared = [&] {
      return std::count_if(keys.begin(), keys.end(), [&](std::string const& other) {
               return last_parts(other, parts) == last_parts(key, parts);
             }) > 1;
    };
    while (is_shared() && last_parts(key, parts) != key) ++parts;
    names[key] = last_parts(key, parts);
  }
  return names;
}

std::string for_folder(std::string const& text) {
  std::string name;
  for (char const c : text) {
    bool const plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '_' || c == '+' ||
                       c == '-' || c == '=';
    if (plain)
      name += c;
    else if (!name.empty() && name.back() != '-')
      name += '-';
  }
  return name;
}

/// A value of a range with four significant digits, which is the value that is used.
SweepValue rounded(double value, bool whole) {
  if (whole) {
    auto const number = static_cast<int64_t>(std::llround(value));
    return {std::to_string(number), number};
  }
  auto const text = fmt::format("{:.4g}", value);
  return {text, std::stod(text)};
}

/// Where in [low, high] a coordinate of [0, 1] lies; whole numbers have equal shares.
SweepValue value_at(SearchKey const& row, double u) {
  if (row.kind == SearchKey::Kind::choice) {
    auto const n = row.choices.size();
    return row.choices[std::min(static_cast<size_t>(u * static_cast<double>(n)), n - 1)];
  }
  double const low = row.whole ? row.low - 0.5 : row.low, high = row.whole ? row.high + 0.5 : row.high;
  double const value = row.kind == SearchKey::Kind::uniform
                           ? low + u * (high - low)
                           : std::exp(std::log(low) + u * (std::log(high) - std::log(low)));
  return rounded(std::clamp(value, row.low, row.high), row.whole);
}

double coordinate(SearchKey const& row, SweepValue const& value) {
  if (row.kind == SearchKey::Kind::choice) {
    for (size_t i = 0; i < row.choices.size(); ++i)
      if (row.choices[i].text == value.text)
        return (static_cast<double>(i) + 0.5) / static_cast<double>(row.choices.size());
    return 0.5;
  }
  double const x = value.json.get<double>();
  double const low = row.whole ? row.low - 0.5 : row.low, high = row.whole ? row.high + 0.5 : row.high;
  return row.kind == SearchKey::Kind::uniform
             ? (x - low) / (high - low)
             : (std::log(x) - std::log(low)) / (std::log(high) - std::log(low));
}

/// What bayes has chosen, from .sweep/settings.json.
std::vector<Setting> chosen_settings(SweepSpec const& spec) {
  std::vector<Setting> settings;
  auto const file = spec.own_folder() / "settings.json";
  if (!fs::exists(file)) return settings;
  for (auto const& row : read_json(file)) {
    Setting setting;
    for (auto const& key : spec.space) {
      auto const value = row.find(key.key);
      FSLLM_CHECK(value != row.end() && value->is_array() && value->size() == 2 && (*value)[0].is_string(),
                  "{} has no {} (it was made by a sweep over other keys). Choose another outdir.",
                  file.string(), key.key);
      setting.emplace_back(key.key, SweepValue{(*value)[0].get<std::string>(), (*value)[1]});
    }
    settings.push_back(std::move(setting));
  }
  return settings;
}

}  // namespace

std::vector<Setting> settings_of(SweepSpec const& spec) {
  if (spec.bayes) return chosen_settings(spec);
  if (spec.space.empty()) return grid_settings(spec.grid);
  std::vector<Setting> settings;
  for (int64_t n = 0; n < spec.count; ++n) settings.push_back(drawn_setting(spec, static_cast<size_t>(n)));
  return settings;
}

Setting drawn_setting(SweepSpec const& spec, size_t n) {
  Philox random(spec.search_seed, Purpose::subsample, n);
  std::vector<double> point;
  for (size_t i = 0; i < spec.space.size(); ++i) point.push_back(random.uniform());
  return setting_at(spec, point);
}

Setting setting_at(SweepSpec const& spec, std::vector<double> const& point) {
  Setting setting;
  for (size_t i = 0; i < spec.space.size(); ++i)
    setting.emplace_back(spec.space[i].key, value_at(spec.space[i], point[i]));
  return setting;
}

std::vector<double> point_of(SweepSpec const& spec, Setting const& setting) {
  std::vector<double> point;
  for (size_t i = 0; i < spec.space.size(); ++i)
    point.push_back(std::clamp(coordinate(spec.space[i], setting[i].second), 0.0, 1.0));
  return point;
}

std::vector<SweepRun> runs_of(SweepSpec const& spec, std::vector<Setting> const& settings) {
  auto const shorts = short_names(keys_of(spec));
  std::vector<std::string> names;
  std::map<std::string, size_t> uses;
  for (auto const& setting : settings) {
    std::string name;
    for (auto const& [key, value] : setting)
      name += for_folder(shorts.at(key)) + "=" + for_folder(value.text) + "_";
    names.push_back(name);
    ++uses[name];
  }
  std::map<std::string, size_t> repeats;  // of settings that are equal to the last digit
  std::vector<SweepRun> runs;
  for (size_t s = 0; s < settings.size(); ++s) {
    auto name = names[s];
    if (uses[name] > 1 || name.size() > kLongestName) {
      auto const whole = keys_json(settings[s]).dump();
      name = name.substr(0, kLongestName) +
             sha256(whole + std::to_string(repeats[whole]++)).substr(0, kHashDigits) + "_";
    }
    for (auto const seed : spec.seeds) {
      auto const run_name = fmt::format("{}seed={}", name, seed);
      runs.push_back({runs.size(), s, seed, run_name, spec.folder / spec.outdir / run_name});
    }
  }
  return runs;
}

std::vector<std::pair<std::string, SweepValue>> assignments(Setting const& setting) {
  std::vector<std::pair<std::string, SweepValue>> all;
  for (auto const& [key, value] : setting) {
    if (value.sets.empty()) all.emplace_back(key, value);
    all.insert(all.end(), value.sets.begin(), value.sets.end());
  }
  return all;
}

nlohmann::ordered_json keys_json(Setting const& setting) {
  auto json = nlohmann::ordered_json::object();
  for (auto const& [key, value] : assignments(setting)) json[key] = value.json;
  return json;
}

nlohmann::ordered_json choices_json(Setting const& setting) {
  auto json = nlohmann::ordered_json::object();
  for (auto const& [name, choice] : setting)
    if (!choice.sets.empty()) json[name] = choice.text;
  return json;
}

std::string keys_text(Setting const& setting) {
  std::string text;
  for (auto const& [key, value] : setting) text += (text.empty() ? "" : ", ") + key + " = " + value.text;
  return text;
}

}  // namespace fsllm
