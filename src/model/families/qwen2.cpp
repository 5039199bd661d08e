// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include "family.hpp"

namespace fsllm::detail {
namespace {

/// LLaMA with biases on q, k, v; layers from `max_window_layers` on slide only if `use_sliding_window`.
void read_qwen2(ConfigJson const& json, ModelConfig& config) {
  read_llama_like(json, config);
  read_rope(json, config);
  config.qkv_bias = true;
  read_qwen_windows(json, config);
}

}  // namespace

void read_qwen_windows(ConfigJson const& json, ModelConfig& config) {
  if (!json.boolean("use_sliding_window", false)) return;
  int64_t const window = json.integer("sliding_window", 4096);
  int64_t const first = json.integer("max_window_layers", 28);
  if (window < 0 || first < 0)
    json.refuse(
        "negative 'sliding_window' or 'max_window_layers' (they count tokens and layers). Correct it.");
  read_layer_types(json, config, window, [&](int64_t layer) { return layer >= first; });
}

void read_layer_types(ConfigJson const& json, ModelConfig& config, int64_t window,
                      std::function<bool(int64_t layer)> const& slides) {
  auto const types = json.texts("layer_types");
  if (!types.empty() && static_cast<int64_t>(types.size()) != config.num_layers)
    json.refuse(
        fmt::format("{} 'layer_types' ({} layers). Correct one of them.", types.size(), config.num_layers));
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    bool const here =
        types.empty() ? slides(layer) : types[static_cast<size_t>(layer)] == "sliding_attention";
    config.layer_windows.push_back(here ? window : 0);
  }
}

Family qwen2_family() {
  auto family = llama_family();
  family.model_type = "qwen2";
  family.read_config = read_qwen2;
  family.ia3_targets = {"q_proj", "v_proj", "down_proj"};
  return family;
}

}  // namespace fsllm::detail
