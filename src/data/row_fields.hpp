// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Fields that change what a row means and are not known here. Each function gives "", or why the row is bad.

/// Of a row of the user's own files.
extern std::span<char const* const> const kRefusedRowFields;
/// Of a turn of a chat.
extern std::span<char const* const> const kRefusedTurnFields;
/// "field 'tool_calls' is not read here" if one of `names` holds anything (null, "", [] and {} do not).
std::string refuse_fields(nlohmann::json const& object, std::span<char const* const> names);

/// `weight`, `train`, `loss`: is this learnt? 0, 1 and truth values.
std::string read_learnt(nlohmann::json const& object, bool& learnt);

/// Is one of them given?
bool has_learnt(nlohmann::json const& object);

/// `system`, and LLaMA-Factory's `history` of [instruction, answer] pairs, which make a chat of an
/// instruction.
std::string read_turns_before(nlohmann::json const& row, Sample& sample);

/// `attention_mask` and the like of token rows, which must say nothing.
std::string check_token_masks(nlohmann::json const& row);

}  // namespace fsllm
