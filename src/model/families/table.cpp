// SPDX-License-Identifier: Apache-2.0
#include "family.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm {
namespace detail {

std::vector<Family> const& family_table() {
  static std::vector<Family> const table = {
      llama_family(), mistral_family(),  qwen2_family(),  qwen3_family(),   gpt2_family(),
      opt_family(),   gpt_neox_family(), bloom_family(),  gpt_neo_family(), gptj_family(),
      phi3_family(),  gemma_family(),    gemma2_family(), falcon_family(),
  };
  return table;
}

Family const& find_family(std::string const& model_type, std::string const& source) {
  for (auto const& family : family_table())
    if (family.model_type == model_type) return family;
  fail(fmt::format("{}: model_type = '{}' (not a model family of this version).{}", source, model_type,
                   did_you_mean(model_type, known_model_families())));
}

}  // namespace detail

std::vector<std::string> known_model_families() {
  std::vector<std::string> names;
  for (auto const& family : detail::family_table()) names.push_back(family.model_type);
  return names;
}

}  // namespace fsllm
