// SPDX-License-Identifier: Apache-2.0
#include "methods.hpp"

#include "lora.hpp"

namespace fsllm {
namespace detail {

std::vector<Row<PeftBuilder>> const& peft_table() {
  static std::vector<Row<PeftBuilder>> const table = {
      {"lora", make_lora, "low-rank updates of projections (Hu et al. 2021)"},
      {"prefix", nullptr, "learned keys and values before the text (Li & Liang 2021)"},
      {"prompt", nullptr, "learned embeddings before the text (Lester et al. 2021)"},
      {"p-tuning", nullptr, "learned embeddings made by an encoder (Liu et al. 2021)"},
  };
  return table;
}

Row<PeftBuilder> const& find_peft(std::string const& name, std::string const& key) {
  auto const& row = find_row(peft_table(), name, key);
  FSLLM_CHECK(row.build != nullptr, "{} = '{}' (not available in this version). Use 'lora'.", key, name);
  return row;
}

}  // namespace detail

std::vector<std::string> known_peft_methods() {
  std::vector<std::string> names;
  for (auto const& row : detail::peft_table())
    if (row.build != nullptr) names.push_back(row.name);
  return names;
}

std::unique_ptr<Peft> make_peft(PeftConfig const& config, CausalLM& model, uint64_t seed) {
  auto peft = detail::find_peft(config.method, "llm.adapter.args[0].adapter_method").build(config, model);
  if (config.init_from.empty()) {
    peft->initialize(seed);
  } else {
    auto live = peft->state();
    copy_values(live, read_adapter_tensors(config.init_from, live));
  }
  peft->attach(model);
  return peft;
}

}  // namespace fsllm
