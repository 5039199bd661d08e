// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "tables.hpp"

namespace fsllm::detail {

/// Columns under one another, behind the title; of many rows the first and the last. "" without rows.
std::string table_text(Table const& table);
std::string facts_text(std::vector<std::pair<std::string, std::string>> const& facts);

}  // namespace fsllm::detail
