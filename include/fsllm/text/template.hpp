// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Everything before the answer, as the model sees it.
using PromptTemplate = std::string (*)(Sample const&);
/// A new template is one more row here.
std::vector<Row<PromptTemplate>> const& prompt_templates();
PromptTemplate find_prompt_template(std::string const& name);

}  // namespace fsllm
