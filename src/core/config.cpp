// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/config.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "config_state.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {

using detail::erase_tree;
using detail::FlatYaml;
using detail::is_under;
using detail::place_of;
using detail::YamlEntry;

namespace {

/// A string of the command line is what was typed, also where it could be read as a list or a map.
void take_literally(FlatYaml& given, std::string const& path) {
  auto const found = given.literals.find(path);
  if (found == given.literals.end()) return;
  auto const text = found->second;
  erase_tree(given, path);
  given.literals.emplace(path, text);
  given.entries.emplace(path, YamlEntry{YamlEntry::Kind::scalar, text, {}, "command line", 0, ""});
  given.order.push_back(path);
}

void check_value(std::string const& place, std::string const& text, double number,
                 Constraint const& constraint) {
  FSLLM_CHECK(!constraint.allows || constraint.allows(number), "{} = {} (must be {}). Change it.", place,
              text, constraint.text);
}

void check_choice(std::string const& place, std::string const& text, Constraint const& constraint) {
  auto const& choices = constraint.choices;
  if (choices.empty() || std::find(choices.begin(), choices.end(), text) != choices.end()) return;
  fail(fmt::format(
      "{} = '{}' (must be one of {}).{}", place, text, detail::listed(choices),
      nearest_name(text, choices).empty() ? " Choose one of them." : did_you_mean(text, choices)));
}

/// One scalar of the document as T.
template <class T>
T parse_scalar(std::string const& place, std::string const& text, Constraint const& constraint);

template <>
bool parse_scalar<bool>(std::string const& place, std::string const& text, Constraint const&) {
  auto const lower = lower_case(text);
  if (lower == "true" || lower == "yes" || lower == "on") return true;
  if (lower == "false" || lower == "no" || lower == "off") return false;
  fail(fmt::format("{} = '{}' (must be True or False). Change it.", place, text));
}

template <>
int64_t parse_scalar<int64_t>(std::string const& place, std::string const& text,
                              Constraint const& constraint) {
  int64_t value = 0;
  char const* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  auto const [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  FSLLM_CHECK(
      error == std::errc() && end == text.data() + text.size() && !text.empty(), "{} = '{}' ({}). Change it.",
      place, text,
      error == std::errc::result_out_of_range ? "it does not fit into 64 bits" : "a whole number is needed");
  check_value(place, text, static_cast<double>(value), constraint);
  return value;
}

template <>
double parse_scalar<double>(std::string const& place, std::string const& text, Constraint const& constraint) {
  double value = 0;
  char const* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  auto const [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  FSLLM_CHECK(
      error == std::errc() && end == text.data() + text.size() && !text.empty() && std::isfinite(value),
      "{} = '{}' (a number is needed). Change it.", place, text);
  check_value(place, text, value, constraint);
  return value;
}

template <>
std::string parse_scalar<std::string>(std::string const& place, std::string const& text,
                                      Constraint const& constraint) {
  check_choice(place, text, constraint);
  return text;
}

template <class T>
struct Kind;
template <>
struct Kind<bool> {
  static constexpr char const* name = "bool";
  static std::string yaml(bool value) { return value ? "true" : "false"; }
};
template <>
struct Kind<int64_t> {
  static constexpr char const* name = "int";
  static std::string yaml(int64_t value) { return fmt::format("{}", value); }
};
template <>
struct Kind<double> {
  static constexpr char const* name = "float";
  /// YAML 1.1 knows an exponent behind a point alone.
  static std::string yaml(double value) {
    auto text = fmt::format("{}", value);
    if (auto const e = text.find('e'); e != text.npos && text.find('.') == text.npos) text.insert(e, ".0");
    return text;
  }
};
template <>
struct Kind<std::string> {
  static constexpr char const* name = "string";
  static std::string yaml(std::string const& value) { return detail::quote_yaml(value); }
};
template <class T>
struct Kind<std::vector<T>> {
  static inline std::string const name = std::string("list of ") + Kind<T>::name;
  static std::string yaml(std::vector<T> const& values) {
    std::vector<std::string> parts;
    for (auto const& value : values) parts.push_back(Kind<T>::yaml(value));
    return fmt::format("[{}]", fmt::join(parts, ", "));
  }
};

template <class T>
struct Reader {
  static T read(std::string const& place, YamlEntry const& entry, Constraint const& constraint) {
    FSLLM_CHECK(entry.kind == YamlEntry::Kind::scalar, "{} is a list ({} is needed). Change it.", place,
                Kind<T>::name);
    return parse_scalar<T>(place, entry.text, constraint);
  }
};
template <class T>
struct Reader<std::vector<T>> {
  static std::vector<T> read(std::string const& place, YamlEntry const& entry, Constraint const& constraint) {
    if (!entry.problem.empty()) fail(entry.problem);
    FSLLM_CHECK(entry.kind == YamlEntry::Kind::list, "{} = '{}' (a list is needed, as [a, b]). Change it.",
                place, entry.text);
    std::vector<T> values;
    for (auto const& item : entry.items) values.push_back(parse_scalar<T>(place, item, constraint));
    return values;
  }
};

std::string default_text_of(std::string const& yaml) {
  return yaml == "\"\"" ? "''" : yaml;
}

}  // namespace

Config::Config() : state_(std::make_unique<State>()) {}
Config::Config(Config const& other) : state_(std::make_unique<State>(*other.state_)) {}
Config::Config(Config&&) noexcept = default;
Config& Config::operator=(Config other) noexcept {
  state_ = std::move(other.state_);
  return *this;
}
Config::~Config() = default;

Config Config::parse(std::string_view yaml, std::string const& source, std::string const& at) {
  Config config;
  config.state_->given = detail::flatten_yaml(yaml, source, at);
  return config;
}

void Config::set(std::string const& path, std::string_view text) {
  FSLLM_CHECK(!path.empty(), "command line: '{}' has no key before it. Write KEY VALUE or KEY=VALUE.", text);
  auto const added = detail::flatten_argument(text, path);
  auto& given = state_->given;
  erase_tree(given, path);
  given.literals.insert(added.literals.begin(), added.literals.end());
  given.entries.insert(added.entries.begin(), added.entries.end());
  given.list_sizes.insert(added.list_sizes.begin(), added.list_sizes.end());
  given.order.insert(given.order.end(), added.order.begin(), added.order.end());
}

template <class T>
T Config::get(std::string const& path, T const& default_value, std::string const& doc,
              Constraint constraint) {
  T value = default_value;
  if constexpr (std::is_same_v<T, std::string>) take_literally(state_->given, path);
  try {
    auto const found = state_->given.entries.find(path);
    if (found != state_->given.entries.end()) {
      if (found->second.kind != YamlEntry::Kind::null)
        value = Reader<T>::read(where(path), found->second, constraint);
    } else {
      for (auto const& [given, entry] : state_->given.entries)
        FSLLM_CHECK(!is_under(given, path), "{} ({} is a single {}, without keys below it). Remove it.",
                    place_of(given, entry), path, Kind<T>::name);
    }
  } catch (Error const& error) {
    if (!state_->collects) throw;
    keep_mistake(error.what());
  }
  if (state_->declared_at.emplace(path, state_->declared.size()).second) {
    state_->declared.push_back(
        {path, Kind<T>::name, default_text_of(Kind<T>::yaml(default_value)), constraint, doc});
    state_->resolved.emplace_back(path, Kind<T>::yaml(value));
  }
  return value;
}
template bool Config::get(std::string const&, bool const&, std::string const&, Constraint);
template int64_t Config::get(std::string const&, int64_t const&, std::string const&, Constraint);
template double Config::get(std::string const&, double const&, std::string const&, Constraint);
template std::string Config::get(std::string const&, std::string const&, std::string const&, Constraint);
template std::vector<int64_t> Config::get(std::string const&, std::vector<int64_t> const&, std::string const&,
                                          Constraint);
template std::vector<double> Config::get(std::string const&, std::vector<double> const&, std::string const&,
                                         Constraint);
template std::vector<std::string> Config::get(std::string const&, std::vector<std::string> const&,
                                              std::string const&, Constraint);

/// Declares a map whose names are the user's: what dump() shows of it is made of `shown`.
void Config::declare_map(KeyInfo const& key, std::vector<std::string> const& shown) {
  if (!state_->declared_at.emplace(key.path, state_->declared.size()).second) return;
  state_->declared.push_back(key);
  state_->resolved.emplace_back(key.path, fmt::format("{{{}}}", fmt::join(shown, ", ")));
  state_->accepted_prefixes.insert(key.path);
}

bool Config::holds_no_map(std::string const& path) const {
  auto const own = state_->given.entries.find(path);
  bool const other = own != state_->given.entries.end() && own->second.kind != YamlEntry::Kind::null;
  return other || list_size(path) > 0;
}

std::vector<std::pair<std::string, double>> Config::numbers(std::string const& path, std::string const& doc,
                                                            Constraint const& constraint) {
  FSLLM_CHECK(!holds_no_map(path),
              "{} is not a map (names with numbers are needed, as {{q_proj: 4}}). Change it.", where(path));
  std::vector<std::pair<std::string, double>> values;
  std::vector<std::string> shown;
  for (auto const& given : state_->given.order) {
    if (!is_under(given, path)) continue;
    auto const& entry = state_->given.entries.at(given);
    values.emplace_back(given.substr(path.size() + 1), Reader<double>::read(where(given), entry, constraint));
    shown.push_back(fmt::format("{}: {}", detail::quote_yaml(values.back().first), values.back().second));
  }
  declare_map({path, "map of numbers", "{}", constraint, doc}, shown);
  return values;
}

bool Config::has(std::string const& path) const {
  auto const& given = state_->given;
  if (given.entries.count(path) != 0 || given.list_sizes.count(path) != 0) return true;
  return std::any_of(given.entries.begin(), given.entries.end(),
                     [&](auto const& item) { return is_under(item.first, path); });
}

std::optional<std::string> Config::text(std::string const& path) const {
  auto const found = state_->given.entries.find(path);
  if (found == state_->given.entries.end()) return {};
  auto const& entry = found->second;
  return entry.kind == YamlEntry::Kind::list ? fmt::format("[{}]", fmt::join(entry.items, ", ")) : entry.text;
}

std::vector<std::string> Config::items(std::string const& path) const {
  auto const found = state_->given.entries.find(path);
  return found == state_->given.entries.end() ? std::vector<std::string>() : found->second.items;
}

bool Config::is_list(std::string const& path) const {
  auto const found = state_->given.entries.find(path);
  return found != state_->given.entries.end() && found->second.kind == YamlEntry::Kind::list;
}

int64_t Config::list_size(std::string const& path) const {
  auto const found = state_->given.list_sizes.find(path);
  return found == state_->given.list_sizes.end() ? 0 : found->second;
}

std::vector<std::string> Config::given_keys() const {
  return state_->given.order;
}

void Config::describe_as(std::string const& path, std::string const& type) {
  state_->declared.at(state_->declared_at.at(path)).type = type;
}

void Config::set_resolved(std::string const& path, std::string const& value) {
  state_->resolved.at(state_->declared_at.at(path)).second = detail::quote_yaml(value);
}

std::vector<std::string> Config::children(std::string const& path) const {
  std::vector<std::string> names;
  for (auto const& given : state_->given.order) {
    if (!path.empty() && !is_under(given, path)) continue;
    auto const rest = given.substr(path.empty() ? 0 : path.size() + 1);
    auto const name = rest.substr(0, rest.find_first_of(".["));
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

std::string Config::where(std::string const& path) const {
  auto const found = state_->given.entries.find(path);
  return found == state_->given.entries.end() ? path : place_of(path, found->second);
}

void Config::accept_all_under(std::string const& prefix) {
  state_->accepted_prefixes.insert(prefix);
}

bool Config::is_read(std::string const& path) const {
  auto const& out = state_->left_out;
  return has(path) || std::none_of(out.begin(), out.end(), [&](auto const& prefix) {
           return path == prefix || is_under(path, prefix);
         });
}

std::string Config::dump() const {
  std::vector<std::pair<std::string, std::string>> read;
  for (auto const& each : state_->resolved)
    if (is_read(each.first)) read.push_back(each);
  return detail::nest_yaml(read);
}

std::vector<KeyInfo> Config::keys() const {
  return state_->declared;
}

}  // namespace fsllm
