// SPDX-License-Identifier: Apache-2.0
#include "fsllm/core/error.hpp"
#include "methods.hpp"

namespace fsllm::detail {
namespace {

/// A method name under `adapter_package: adapterhub` in FS-LLM (llm/model/adapter_builder.py), and the
/// arguments that FS-LLM fixes there, in our terms. Without a method: why there is none.
struct HubName {
  char const* name;
  char const* method;
  char const* presets;
  char const* why = "";
};

constexpr HubName kHubNames[] = {
    {"lora", "lora", R"({"r": 8, "lora_alpha": 16})"},
    {"prefix", "prefix",
     R"({"num_virtual_tokens": 30, "prefix_projection": true, "encoder_hidden_size": 512})"},
    {"bottleneck", "bottleneck", R"({"non_linearity": "relu"})"},
    {"ia_3", "ia3", "{}"},
    {"lang", "", "", "invertible adapters"},
    {"compacter", "", "", "hypercomplex adapters"},
    {"union", "", "", "two bottleneck adapters of different sizes"},
    {"mam", "", "", "a prefix and a parallel adapter at once"},
};

}  // namespace

HubMethod find_hub_method(std::string const& name, std::string const& key) {
  std::vector<std::string> known;
  for (auto const& row : kHubNames) {
    known.emplace_back(row.name);
    if (name != row.name) continue;
    FSLLM_CHECK(row.method[0] != '\0',
                "{} = '{}' ({} are not available in this version). Use lora, prefix, ia_3 or bottleneck.",
                key, name, row.why);
    return {row.method, nlohmann::ordered_json::parse(row.presets)};
  }
  fail(fmt::format("{} = '{}' (not a name of adapterhub's).{}", key, name, did_you_mean(name, known)));
}

}  // namespace fsllm::detail
