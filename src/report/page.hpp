// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "tables.hpp"

namespace fsllm::detail {

/// A whole page around `body`: its style is part of it, and nothing is loaded.
std::string page_html(std::string const& title, std::string const& body);
std::string table_html(Table const& table);
/// Name and value, as tiles.
std::string tiles_html(std::vector<std::pair<std::string, std::string>> const& facts);
/// `body` under a heading; "" where it is empty.
std::string section_html(std::string const& heading, std::string const& body);

}  // namespace fsllm::detail
