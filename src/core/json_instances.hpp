// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json.hpp>
#include <string>

// Part of the precompiled headers and in front of the batches of FSLLM_UNITY: the code of JSON values, of
// their parser and of their writer is made once, in json_instances.cpp, and not in each file that uses them
// (two seconds a file).
namespace fsllm::detail {
using JsonText = decltype(nlohmann::detail::input_adapter(std::declval<std::string const&>()));
}

// NOLINTBEGIN(bugprone-macro-parentheses): a word in front of a declaration
#define FSLLM_JSON_INSTANCES(PREFIX, JSON)                                         \
  PREFIX template class nlohmann::detail::serializer<JSON>;                        \
  PREFIX template class nlohmann::detail::parser<JSON, ::fsllm::detail::JsonText>; \
  PREFIX template class nlohmann::detail::lexer<JSON, ::fsllm::detail::JsonText>;
// NOLINTEND(bugprone-macro-parentheses)

extern template class nlohmann::basic_json<>;
extern template class nlohmann::basic_json<nlohmann::ordered_map>;
FSLLM_JSON_INSTANCES(extern, nlohmann::json)
FSLLM_JSON_INSTANCES(extern, nlohmann::ordered_json)
