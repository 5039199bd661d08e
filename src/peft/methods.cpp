// SPDX-License-Identifier: Apache-2.0
#include "methods.hpp"

#include <ATen/ops/equal.h>

#include "adapter_vocabulary.hpp"
#include "fsllm/core/error.hpp"
#include "lora.hpp"
#include "prompt_learning.hpp"

namespace fsllm {
namespace detail {

std::vector<PeftRow> const& peft_table() {
  static std::vector<PeftRow> const table = {
      {"lora", {"LORA", read_lora, make_lora}, "low-rank updates of projections (Hu et al. 2021)"},
      {"prefix",
       {"PREFIX_TUNING", read_prefix, make_prefix},
       "learned keys and values before the text (Li & Liang 2021)"},
      {"prompt",
       {"PROMPT_TUNING", read_prompt, make_prompt},
       "learned embeddings before the text (Lester et al. 2021)"},
      {"p-tuning",
       {"P_TUNING", read_p_tuning, make_p_tuning, "prompt"},
       "learned embeddings made by an encoder (Liu et al. 2021)"},
      {"ia3", {"IA3", read_ia3, make_ia3}, "learned scales of keys, values and MLP inputs (Liu et al. 2022)"},
      {"bitfit", {"LORA", read_bitfit, make_bitfit}, "the model's biases (Ben Zaken et al. 2022)"},
      {"bottleneck",
       {"BOTTLENECK", read_bottleneck, make_bottleneck},
       "small networks behind sublayers (Houlsby et al. 2019) or blocks (Pfeiffer et al. 2021), or beside "
       "MLPs"},
      {"compacter",
       {"BOTTLENECK", read_compacter, make_compacter},
       "bottlenecks of Kronecker products (Karimi Mahabadi et al. 2021)"},
      {"mam", {"MAM", read_mam, make_mam}, "a prefix and small networks beside MLPs (He et al. 2022)"},
  };
  return table;
}

PeftRow const& find_peft(std::string const& name, std::string const& key) {
  return find_row(peft_table(), name, key);
}

PeftRow const* find_peft_type(std::string const& peft_type) {
  for (auto const& row : peft_table())
    if (row.build.peft_type == peft_type) return &row;
  return nullptr;
}

}  // namespace detail

namespace {

/// Puts the values of the saved adapter into the method. What its file holds beside them and `embeddings`
/// must be what the method would write there.
void start_from_saved(PeftConfig const& config, Peft& peft, std::set<std::string> const& embeddings) {
  auto live = peft.state();
  auto const written = peft.file_tensors(live);
  auto values = read_adapter_tensors(config.init_from, written, embeddings);
  for (auto const& [name, tensor] : written) {
    if (live.count(name) != 0) continue;
    FSLLM_CHECK(
        at::equal(values.at(name), tensor),
        "{}: {} holds an update (adapter_method: {} has none there). Go on with the method that made it.",
        config.init_from, name, config.method);
    values.erase(name);
  }
  copy_values(live, values);
}

}  // namespace

std::vector<std::string> known_peft_methods() {
  std::vector<std::string> names;
  for (auto const& row : detail::peft_table()) names.push_back(row.name);
  return names;
}

std::vector<std::pair<std::string, std::string>> peft_methods() {
  std::vector<std::pair<std::string, std::string>> methods;
  for (auto const& row : detail::peft_table()) methods.emplace_back(row.name, row.what);
  return methods;
}

std::unique_ptr<Peft> make_peft(PeftConfig const& config, CausalLM& model, uint64_t seed) {
  std::set<std::string> embeddings;
  if (!config.init_from.empty()) embeddings = detail::load_vocabulary(config.init_from, model);
  auto peft = detail::find_peft(config.method, detail::kArgs + ".adapter_method").build.build(config, model);
  if (config.init_from.empty()) {
    peft->initialize(seed);
  } else {
    start_from_saved(config, *peft, embeddings);
  }
  peft->attach(model);
  return peft;
}

}  // namespace fsllm
