// SPDX-License-Identifier: Apache-2.0
#include "safetensors_header.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "dtype.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/io/files.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr uint64_t kLengthBytes = 8;
/// The limit of the reference implementation.
constexpr uint64_t kLargestHeader = 100'000'000;

/// What every refusal says around its reason.
class Refusal {
 public:
  explicit Refusal(std::string const& source) : source_(source) {}
  void unless(bool condition, std::string const& why) const {
    FSLLM_CHECK(condition, "{} is not a valid safetensors file ({}). Copy or convert it again.", source_,
                why);
  }
  [[noreturn]] void now(std::string const& why) const {
    unless(false, why);
    std::abort();
  }

 private:
  std::string const& source_;
};

/// Parses JSON and refuses objects that name a key twice.
json parse_unique(std::string_view text, Refusal const& refuse) {
  std::vector<std::set<std::string>> keys;
  auto const watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      auto const& name = parsed.get_ref<std::string const&>();
      refuse.unless(keys.back().insert(name).second, fmt::format("the header names '{}' twice", name));
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (json::exception const& error) {
    refuse.now(fmt::format("its header is not JSON: {}", error.what()));
  }
}

int64_t natural(json const& value, std::string const& name, char const* what, Refusal const& refuse) {
  refuse.unless(
      value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()},
      fmt::format("{} of '{}' is not a natural number", what, name));
  return value.get<int64_t>();
}

json const& member(json const& entry, std::string const& name, char const* key, json::value_t type,
                   Refusal const& refuse) {
  auto const found = entry.find(key);
  refuse.unless(found != entry.end() && found->type() == type,
                fmt::format("'{}' has no valid {}", name, key));
  return *found;
}

SafetensorsEntry parse_entry(json const& value, std::string const& name, Refusal const& refuse) {
  refuse.unless(value.is_object(), fmt::format("'{}' is not an object", name));
  SafetensorsEntry entry;
  auto const& dtype =
      member(value, name, "dtype", json::value_t::string, refuse).get_ref<std::string const&>();
  auto const type = dtype_from_name(dtype);
  refuse.unless(type.has_value(), fmt::format("'{}' has the unknown dtype {}", name, dtype));
  entry.type = *type;
  for (auto const& size : member(value, name, "shape", json::value_t::array, refuse))
    entry.shape.push_back(natural(size, name, "a dimension", refuse));
  auto const& offsets = member(value, name, "data_offsets", json::value_t::array, refuse);
  refuse.unless(offsets.size() == 2, fmt::format("'{}' has no two data_offsets", name));
  entry.begin = natural(offsets[0], name, "an offset", refuse);
  entry.end = natural(offsets[1], name, "an offset", refuse);
  auto const bytes = checked_bytes(entry.shape, entry.type);
  refuse.unless(bytes && entry.begin <= entry.end && entry.end - entry.begin == *bytes,
                fmt::format("'{}' has offsets {} to {}, which do not fit its shape and dtype", name,
                            entry.begin, entry.end));
  return entry;
}

std::map<std::string, std::string> parse_metadata(json const& value, Refusal const& refuse) {
  bool const texts = value.is_object() &&
                     std::all_of(value.begin(), value.end(), [](json const& v) { return v.is_string(); });
  refuse.unless(texts, "__metadata__ is not a map of texts");
  return value.get<std::map<std::string, std::string>>();
}

/// The tensors must tile [0, data_size); then offsets are made to count from the start of the file.
void check_tiling(SafetensorsHeader& header, int64_t data_size, int64_t data_start, Refusal const& refuse) {
  std::vector<std::pair<std::string const*, SafetensorsEntry*>> order;
  for (auto& [name, entry] : header.tensors) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](auto const& a, auto const& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  int64_t expected = 0;
  for (auto const& [name, entry] : order) {
    refuse.unless(entry->begin == expected,
                  fmt::format("'{}' begins at {} {} the tensor before it ends at {}", *name, entry->begin,
                              entry->begin < expected ? "although" : "and", expected));
    expected = entry->end;
    refuse.unless(entry->end <= data_size,
                  fmt::format("'{}' ends at {}, beyond the data's {} bytes", *name, entry->end, data_size));
    entry->begin += data_start;
    entry->end += data_start;
  }
  refuse.unless(expected == data_size,
                fmt::format("its tensors take {} bytes, its data {}", expected, data_size));
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view file, std::string const& source) {
  Refusal const refuse(source);
  refuse.unless(file.size() >= kLengthBytes, fmt::format("it has only {} bytes", file.size()));
  refuse.unless(!is_lfs_pointer(file), kLfsPointer);
  uint64_t length = 0;
  std::memcpy(&length, file.data(),
              kLengthBytes);  // little-endian, as every machine that LibTorch runs on here
  refuse.unless(length <= kLargestHeader && length <= file.size() - kLengthBytes,
                fmt::format("its header claims {} bytes of {}", length, file.size()));
  json const document = parse_unique(file.substr(kLengthBytes, length), refuse);
  refuse.unless(document.is_object(), "its header is not a JSON object");
  SafetensorsHeader header;
  for (auto const& [name, value] : document.items()) {
    if (name == "__metadata__")
      header.metadata = parse_metadata(value, refuse);
    else
      header.tensors.emplace(name, parse_entry(value, name, refuse));
  }
  auto const data_start = static_cast<int64_t>(kLengthBytes + length);
  check_tiling(header, static_cast<int64_t>(file.size()) - data_start, data_start, refuse);
  return header;
}

}  // namespace fsllm
