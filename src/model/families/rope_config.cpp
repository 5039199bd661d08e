// SPDX-License-Identifier: Apache-2.0
// How config.json says which dimensions are turned, how fast, and how that is stretched for long rows.
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// transformers 5 writes "rope_parameters" (theta inside); before, "rope_scaling" beside "rope_theta". Where
/// a file has both, "rope_scaling" takes the place of the other (RotaryEmbeddingConfigMixin,
/// `convert_rope_params_to_dict`).
ConfigJson rope_object(ConfigJson const& json) {
  auto const scaling = json.object("rope_scaling");
  auto const rope = scaling.empty() ? json.object("rope_parameters") : scaling;
  if (auto const types = rope.object_keys(); !types.empty())
    rope.refuse(fmt::format(
        "parameters of their own for {} (layers that turn positions in different ways are not available in "
        "this version). Use another model.",
        fmt::join(types, ", ")));
  return rope;
}

/// What "rope_parameters" alone holds is lost beside a "rope_scaling"; transformers takes the defaults of
/// the model type then, which is hardly what was meant.
void check_replaced(ConfigJson const& json, ConfigJson const& rope, ModelConfig const& config) {
  auto const other = json.object("rope_parameters");
  if (json.object("rope_scaling").empty() || other.empty()) return;
  auto const lost = [&](std::string const& key) {
    return other.has(key) && !rope.has(key) && !json.has(key);
  };
  auto const part = static_cast<double>(config.head_dim) * other.number("partial_rotary_factor", 1);
  for (auto const& [key, differs] :
       {std::pair{"rope_theta", other.number("rope_theta", 0) != config.rope_theta},
        std::pair{"partial_rotary_factor", static_cast<int64_t>(part) != config.rotary_dim}})
    if (lost(key) && differs)
      rope.refuse(
          fmt::format("no '{}' ('rope_parameters' has {}, and 'rope_scaling' replaces it). Write it "
                      "into 'rope_scaling', or move all keys into 'rope_parameters'.",
                      key, other.number(key, 0)));
}

void check_factor(ConfigJson const& rope, ModelConfig const& config) {
  if (config.rope_factor < 1) rope.refuse("'factor' below 1 (it stretches the positions). Correct it.");
}

void read_factor(ConfigJson const& rope, ModelConfig& config) {
  if (!rope.has("factor"))
    rope.refuse("'factor' is missing (this rope_type needs it). Use the model's own config.json.");
  config.rope_factor = rope.number("factor", config.rope_factor);
  check_factor(rope, config);
}

void read_linear(ConfigJson const&, ConfigJson const& rope, ModelConfig& config) {
  config.rope_scaling = RopeScaling::linear;
  read_factor(rope, config);
}

/// Other frequencies in rows beyond the model's positions only, and those are refused.
void read_dynamic(ConfigJson const&, ConfigJson const& rope, ModelConfig& config) {
  read_factor(rope, config);
}

/// The one beside the object wins, as in transformers, and without any they are those of the model
/// (`standardize_rope_params`).
int64_t original_positions(ConfigJson const& json, ConfigJson const& rope, ModelConfig const& config) {
  std::string const key = "original_max_position_embeddings";
  int64_t const fixed = json.size_or(key, config.rope_original_positions);
  int64_t const positions = fixed > 0 ? fixed : rope.size_or(key, config.max_positions);
  if (positions < 2)
    rope.refuse(fmt::format("'{}' = {} (at least 2 are needed). Correct it.", key, positions));
  return positions;
}

void read_llama3(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config) {
  config.rope_scaling = RopeScaling::llama3;
  config.rope_low_freq_factor = rope.number("low_freq_factor", 1);
  config.rope_high_freq_factor = rope.number("high_freq_factor", 4);
  config.rope_original_positions = original_positions(json, rope, config);
  if (config.rope_low_freq_factor <= 0 || config.rope_high_freq_factor <= config.rope_low_freq_factor)
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

void read_attention_factor(ConfigJson const& rope, ModelConfig& config, double usual) {
  config.rope_attention_factor = rope.number("attention_factor", usual);
  if (config.rope_attention_factor <= 0)
    rope.refuse(
        fmt::format("'attention_factor' = {} (must be above 0). Correct it.", config.rope_attention_factor));
}

/// Ding et al. 2024; the factor of cos and sin as in transformers modeling_rope_utils,
/// `_compute_longrope_parameters`.
void read_longrope(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config) {
  config.rope_scaling = RopeScaling::longrope;
  config.rope_original_positions = original_positions(json, rope, config);
  config.rope_short_factors = read_divisors(rope, "short_factor", config.rotary_dim / 2);
  config.rope_long_factors = read_divisors(rope, "long_factor", config.rotary_dim / 2);
  auto const original = static_cast<double>(config.rope_original_positions);
  double const factor = rope.number("factor", static_cast<double>(config.max_positions) / original);
  double const usual = factor <= 1 ? 1 : std::sqrt(1 + std::log(factor) / std::log(original));
  read_attention_factor(rope, config, usual);
}

/// Peng et al. 2024, equations 22 and 25: what a wave turns in the original positions decides whether it is
/// kept or stretched. `mscale` as in transformers modeling_rope_utils, `_compute_yarn_parameters`.
void read_yarn(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config) {
  if (rope.has("short_factor")) return read_longrope(json, rope, config);  // an early name of it
  config.rope_scaling = RopeScaling::yarn;
  config.rope_original_positions = original_positions(json, rope, config);
  auto const original = static_cast<double>(config.rope_original_positions);
  config.rope_factor = rope.number("factor", static_cast<double>(config.max_positions) / original);
  check_factor(rope, config);
  double const fast = rope.number("beta_fast", 32), slow = rope.number("beta_slow", 1);
  if (slow <= 0 || fast < slow || config.rope_theta <= 1)
    rope.refuse("impossible yarn numbers (0 < beta_slow <= beta_fast and rope_theta > 1). Correct them.");
  auto const dim = static_cast<double>(config.rotary_dim);
  auto const index_of = [&](double turns) {
    return dim * std::log(original / (turns * 2 * std::numbers::pi)) / (2 * std::log(config.rope_theta));
  };
  bool const whole = rope.boolean("truncate", true);
  double const begin = whole ? std::floor(index_of(fast)) : index_of(fast);
  double const end = whole ? std::ceil(index_of(slow)) : index_of(slow);
  config.rope_ramp_begin = std::max(begin, 0.0);
  config.rope_ramp_end = std::min(end, dim - 1);
  if (config.rope_ramp_begin == config.rope_ramp_end) config.rope_ramp_end += 0.001;
  auto const magnitude = [&](double scale) { return 1 + 0.1 * scale * std::log(config.rope_factor); };
  double const mscale = rope.number("mscale", 0), all_dim = rope.number("mscale_all_dim", 0);
  bool const both = mscale != 0 && all_dim != 0;
  read_attention_factor(rope, config, both ? magnitude(mscale) / magnitude(all_dim) : magnitude(1));
}

void read_default(ConfigJson const&, ConfigJson const&, ModelConfig&) {}

/// A row of the table of scalings.
struct Scaling {
  std::string rope_type;
  void (*read)(ConfigJson const& json, ConfigJson const& rope, ModelConfig& config);
};

std::vector<Scaling> const& scalings() {
  static std::vector<Scaling> const rows{{"default", read_default}, {"linear", read_linear},
                                         {"dynamic", read_dynamic}, {"llama3", read_llama3},
                                         {"yarn", read_yarn},       {"longrope", read_longrope},
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
  check_replaced(json, rope, config);
  auto const type = rope.text("rope_type", rope.text("type", "default"));
  std::vector<std::string> known;
  for (auto const& row : scalings()) {
    if (row.rope_type == type) return row.read(json, rope, config);
    known.push_back(row.rope_type);
  }
  rope.refuse(fmt::format("rope_type = '{}' (known: {}). Use another model.", type, fmt::join(known, ", ")));
}

}  // namespace fsllm::detail
