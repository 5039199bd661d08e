// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"

namespace fsllm::detail {
namespace {

/// LLaMA whose layers attend to the last `sliding_window` tokens only (Jiang et al. 2023, section 2); null
/// (v0.2 and later) means all tokens.
void read_mistral(ConfigJson const& json, ModelConfig& config) {
  read_llama_like(json, config);
  read_rope(json, config);
  read_window(json, config, 4096);
}

}  // namespace

void read_window(ConfigJson const& json, ModelConfig& config, int64_t fallback) {
  int64_t const window = json.is_null("sliding_window") ? 0 : json.integer("sliding_window", fallback);
  if (window < 0) json.refuse("'sliding_window' is negative (it counts tokens). Correct it.");
  config.layer_windows.assign(static_cast<size_t>(config.num_layers), window);
}

Family mistral_family() {
  auto family = llama_family();
  family.model_type = "mistral";
  family.read_config = read_mistral;
  return family;
}

}  // namespace fsllm::detail
