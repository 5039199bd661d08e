// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Each fills `sample` from one JSON object and gives "", or why the row is bad.
///
/// `messages`: [{role, content}, ...].
std::string read_messages(nlohmann::json const& row, Sample& sample);
/// ShareGPT's `conversations`: [{from, value}, ...].
std::string read_conversations(nlohmann::json const& row, Sample& sample);
/// `prompt`, `chosen`, `rejected`: texts, or lists of messages as TRL writes them.
std::string read_preference(nlohmann::json const& row, Sample& sample);

}  // namespace fsllm
