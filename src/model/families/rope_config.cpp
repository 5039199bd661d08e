// SPDX-License-Identifier: Apache-2.0
// How config.json says which dimensions are turned, how fast, and how that is stretched for long rows.
#include <fmt/ranges.h>

#include <cmath>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// transformers 5 writes "rope_parameters" (theta inside); before, "rope_scaling" beside "rope_theta".
ConfigJson rope_object(ConfigJson const& json) {
  return json.object(json.has("rope_parameters") ? "rope_parameters" : "rope_scaling");
}

void read_factor(ConfigJson const& rope, ModelConfig& config) {
  config.rope_factor = rope.number("factor", 1);
  if (config.rope_factor < 1) rope.refuse("'factor' below 1 (it stretches the positions). Correct it.");
}

void read_linear(ConfigJson const&, ConfigJson const& rope, ModelConfig& config) {
  config.rope_scaling = RopeScaling::linear;
  read_factor(rope, config);
}

void read_llama3(ConfigJson const&, ConfigJson const& rope, ModelConfig& config) {
  config.rope_scaling = RopeScaling::llama3;
  config.rope_low_freq_factor = rope.number("low_freq_factor", 1);
  config.rope_high_freq_factor = rope.number("high_freq_factor", 4);
  config.rope_original_positions = rope.integer("original_max_position_embeddings");
  if (config.rope_original_positions < 1 || config.rope_low_freq_factor <= 0 ||
      config.rope_high_freq_factor <= config.rope_low_freq_factor)
    rope.refuse(
        "impossible llama3 numbers (0 < low_freq_factor < high_freq_factor is needed). Correct them.");
  read_factor(rope, config);
}

std::vector<double> read_divisors(ConfigJson const& rope, std::string const& key, int64_t count) {
  auto const divisors = rope.numbers(key);
  if (static_cast<int64_t>(divisors.size()) != count)
    rope.refuse(
        fmt::format("'{}' holds {} numbers (one for each of the {} frequencies is needed). Correct it.", key,
                    divisors.size(), count));
  for (double const divisor : divisors)
    if (divisor <= 0)
      rope.refuse(fmt::format("'{}' holds {} (numbers above 0 are needed). Correct it.", key, divisor));
  return divisors;
}

/// Ding et al. 2024; the factor of cos and sin as in transformers modeling_rope_utils,
/// `_compute_longrope_parameters`.
void read_longrope(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config) {
  std::string const key = "original_max_position_embeddings";
  config.rope_scaling = RopeScaling::longrope;
  config.rope_original_positions = rope.has(key) ? rope.size(key) : json.size(key);
  if (config.rope_original_positions < 2)
    json.refuse(
        fmt::format("'{}' = {} (at least 2 are needed). Correct it.", key, config.rope_original_positions));
  config.rope_short_factors = read_divisors(rope, "short_factor", config.rotary_dim / 2);
  config.rope_long_factors = read_divisors(rope, "long_factor", config.rotary_dim / 2);
  auto const original = static_cast<double>(config.rope_original_positions);
  double const factor = rope.number("factor", static_cast<double>(config.max_positions) / original);
  double const usual = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  config.rope_attention_factor = rope.number("attention_factor", usual);
  if (config.rope_attention_factor <= 0)
    rope.refuse(
        fmt::format("'attention_factor' = {} (must be above 0). Correct it.", config.rope_attention_factor));
}

void read_default(ConfigJson const&, ConfigJson const&, ModelConfig&) {}

/// A row of the table of scalings.
struct Scaling {
  std::string rope_type;
  void (*read)(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config);
};

std::vector<Scaling> const& scalings() {
  static std::vector<Scaling> const rows{{"default", read_default},
                                         {"linear", read_linear},
                                         {"llama3", read_llama3},
                                         {"longrope", read_longrope},
                                         {"su", read_longrope}};  // LongRoPE's name in early Phi-3 files
  return rows;
}

}  // namespace

int64_t partial_rotary_dim(ConfigJson const& json, ModelConfig const& config, std::string const& key,
                           double fallback) {
  auto const rope = rope_object(json);
  bool const inside = rope.has("partial_rotary_factor");
  double const part = inside ? rope.number("partial_rotary_factor", 1) : json.number(key, fallback);
  auto const turned = static_cast<int64_t>(static_cast<double>(config.head_dim) * part);
  if (part <= 0 || part > 1 || turned < 2)
    json.refuse(fmt::format(
        "'{}' = {} (a part of the head's {} dimensions, above 0 and up to 1, is needed). Correct it.",
        inside ? "partial_rotary_factor" : key, part, config.head_dim));
  return turned;
}

void read_rope(ConfigJson const& json, ModelConfig& config) {
  auto const rope = rope_object(json);
  config.position = PositionKind::rope;
  if (config.rotary_dim == 0) config.rotary_dim = config.head_dim;
  config.rope_theta = rope.number("rope_theta", json.number("rope_theta", config.rope_theta));
  auto const type = rope.text("rope_type", rope.text("type", "default"));
  std::vector<std::string> known;
  for (auto const& row : scalings()) {
    if (row.rope_type == type) return row.read(json, rope, config);
    known.push_back(row.rope_type);
  }
  rope.refuse(fmt::format("rope_type = '{}' (known: {}). Use another model.", type, fmt::join(known, ", ")));
}

}  // namespace fsllm::detail
