// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "fsllm/text/sample.hpp"

namespace fsllm {

/// Each fills `sample` from one JSON object and gives "", or why the row is bad.
///
/// `messages`: [{role, content}, ...].
std::string read_messages(nlohmann::json const& row, Sample& sample);
/// ShareGPT's `conversations`: [{from, value}, ...].
std::string read_conversations(nlohmann::json const& row, Sample& sample);
/// `prompt`, `chosen`, `rejected`: texts, or lists of messages as TRL writes them. The chosen answer is that
/// of the sample.
std::string read_preference(nlohmann::json const& row, Sample& sample);
/// TRL's conversational form: the sample's messages are those of the prompt, where it has any of its own, and
/// of `chosen`; `rejected` gets those of the other list.
std::string read_preference_messages(nlohmann::json const& row, Sample& sample,
                                     std::vector<ChatMessage>& rejected);

}  // namespace fsllm
