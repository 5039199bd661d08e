// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "methods.hpp"

namespace fsllm::detail {
namespace {

/// A method name under `adapter_package: adapterhub` in FS-LLM (llm/model/adapter_builder.py), and the
/// arguments that FS-LLM fixes there, in our terms, where they are not our defaults.
struct HubName {
  char const* name;
  char const* method;
  char const* presets;
};

constexpr HubName kHubNames[] = {
    {"lora", "lora", R"({"r": 8, "lora_alpha": 16})"},
    {"prefix", "prefix",
     R"({"num_virtual_tokens": 30, "prefix_projection": true, "encoder_hidden_size": 512})"},
    {"bottleneck", "bottleneck", R"({"non_linearity": "relu"})"},
    {"ia_3", "ia3", "{}"},
    {"lang", "bottleneck", R"({"architecture": "pfeiffer", "inv_adapter": "nice"})"},
    {"compacter", "compacter", "{}"},
    {"union", "bottleneck", R"({"non_linearity": "relu", "mlp_reduction_factor": 2})"},
    {"mam", "mam", "{}"},
};

}  // namespace

HubMethod find_hub_method(std::string const& name, std::string const& key) {
  std::vector<std::string> known;
  for (auto const& row : kHubNames) {
    known.emplace_back(row.name);
    if (name == row.name) return {row.method, nlohmann::ordered_json::parse(row.presets)};
  }
  fail(fmt::format("{} = '{}' (not a name of adapterhub's).{}", key, name, did_you_mean(name, known)));
}

}  // namespace fsllm::detail
