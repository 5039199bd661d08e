// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <any>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "fsllm/core/table.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// What PEFT puts in front of the names of a model's modules in its files.
inline std::string const kPeftPrefix = "base_model.model.";

/// A parameter-efficient method, as a row of the table.
struct PeftMethod {
  std::string peft_type;  ///< in adapter_config.json
  /// Declares and reads the arguments; what all methods know goes into the PeftConfig.
  std::any (*read)(Arguments&, PeftConfig&);
  /// Makes the method for a model without attaching it.
  std::unique_ptr<Peft> (*build)(PeftConfig const&, CausalLM&);
  /// The method that goes on from a saved adapter of this type, where its file holds less than what was
  /// trained; "" for itself.
  std::string continued_as = {};
};

using PeftRow = Row<PeftMethod>;

std::vector<PeftRow> const& peft_table();

/// The row of `name`; messages name `key`.
PeftRow const& find_peft(std::string const& name, std::string const& key);
/// The row whose adapters say this `peft_type`; null for none.
PeftRow const* find_peft_type(std::string const& peft_type);

/// The options that a method's `read` made, or its defaults.
template <class Options>
Options options_of(PeftConfig const& config) {
  auto const* options = std::any_cast<Options>(&config.options);
  return options != nullptr ? *options : Options{};
}

/// adapter_config.json of a folder, which must be there and be an object.
SavedConfig read_saved_config(std::filesystem::path const& dir);

/// A name of AdapterHub's FS-LLM configurations: what it is here, and AdapterHub's defaults for it.
struct HubMethod {
  std::string method;
  nlohmann::ordered_json presets;
};
HubMethod find_hub_method(std::string const& name, std::string const& key);

std::any read_ia3(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_ia3(PeftConfig const& config, CausalLM& model);
std::any read_bitfit(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_bitfit(PeftConfig const& config, CausalLM& model);
std::any read_bottleneck(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_bottleneck(PeftConfig const& config, CausalLM& model);
std::any read_compacter(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_compacter(PeftConfig const& config, CausalLM& model);
std::any read_mam(Arguments& arguments, PeftConfig& shared);
std::unique_ptr<Peft> make_mam(PeftConfig const& config, CausalLM& model);

}  // namespace fsllm::detail
