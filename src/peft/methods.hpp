// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/peft/peft.hpp"

namespace fsllm::detail {

/// Makes the method for a model without attaching it; null for methods of a later version.
using PeftBuilder = std::unique_ptr<Peft> (*)(PeftConfig const&, CausalLM&);

std::vector<Row<PeftBuilder>> const& peft_table();

/// The row of `name`, which must exist and be built in this version; messages name `key`.
Row<PeftBuilder> const& find_peft(std::string const& name, std::string const& key);

}  // namespace fsllm::detail
