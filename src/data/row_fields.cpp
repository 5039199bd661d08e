// SPDX-License-Identifier: Apache-2.0
#include "row_fields.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "json_fields.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr char const* kRowFields[] = {"tools",  "functions", "tool_calls", "function_call",
                                      "images", "videos",    "audios",     "chat_template_kwargs"};
constexpr char const* kTurnFields[] = {"tool_calls", "function_call",     "tool_call_id",
                                       "images",     "reasoning_content", "thinking"};
constexpr char const* kLearntFields[] = {"weight", "train", "loss"};

json const* find(json const& object, char const* name) {
  auto const found = object.find(name);
  bool const empty = found == object.end() || found->is_null() ||
                     ((found->is_array() || found->is_object()) && found->empty()) || *found == "";
  return empty ? nullptr : &*found;
}

std::string read_history(json const& history, Sample& sample) {
  for (size_t i = 0; history.is_array() && i < history.size(); ++i) {
    auto const& pair = history[i];
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
      return fmt::format("history[{}] is not a pair of texts, [instruction, answer]", i);
    sample.messages.push_back({"user", pair[0].get<std::string>()});
    sample.messages.push_back({"assistant", pair[1].get<std::string>()});
  }
  return history.is_array() ? ""
                            : fmt::format("field 'history' is not a list but a JSON {}", history.type_name());
}

/// In front of the messages of a chat.
std::string add_system(std::string const& system, Sample& sample) {
  auto& messages = sample.messages;
  if (messages.empty() || messages.front().role != "system") {
    messages.insert(messages.begin(), {"system", system});
    return "";
  }
  return messages.front().content == system ? ""
                                            : "field 'system' and the first message are two system messages";
}

}  // namespace

std::span<char const* const> const kRefusedRowFields = kRowFields;
std::span<char const* const> const kRefusedTurnFields = kTurnFields;

std::string refuse_fields(json const& object, std::span<char const* const> names) {
  for (auto const* name : names)
    if (find(object, name) != nullptr)
      return fmt::format("field '{}' is not read here (without it the row would say something else)", name);
  return "";
}

std::string read_learnt(json const& object, bool& learnt) {
  for (auto const* name : kLearntFields) {
    auto const* const value = find(object, name);
    if (value == nullptr) continue;
    bool const is_number = value->is_number() && (*value == 0 || *value == 1);
    if (!value->is_boolean() && !is_number)
      return fmt::format("field '{}' = {:.40} is neither 0 nor 1 (other weights are not known here)", name,
                         value->dump());
    learnt = learnt && (value->is_boolean() ? value->get<bool>() : *value == 1);
  }
  return "";
}

bool has_learnt(json const& object) {
  return std::any_of(std::begin(kLearntFields), std::end(kLearntFields),
                     [&](auto const* name) { return find(object, name) != nullptr; });
}

std::string read_turns_before(json const& row, Sample& sample) {
  auto const *system = find(row, "system"), *history = find(row, "history");
  if (system == nullptr && history == nullptr) return "";
  std::string text;
  if (system != nullptr)
    if (auto why = read_text(row, "system", text); !why.empty()) return why;
  if (sample.kind == SampleKind::chat)
    return history == nullptr ? add_system(text, sample) : "field 'history' beside a list of messages";
  if (sample.kind != SampleKind::instruction)
    return fmt::format("field '{}' in a row that is no chat", system != nullptr ? "system" : "history");
  if (history != nullptr)
    if (auto why = read_history(*history, sample); !why.empty()) return why;
  if (system != nullptr) add_system(text, sample);
  for (auto& message : messages_of_instruction(sample)) sample.messages.push_back(std::move(message));
  sample.kind = SampleKind::chat;
  sample.instruction.clear();
  sample.input.clear();
  sample.output.clear();
  return "";
}

std::string check_token_masks(json const& row) {
  struct Mask {
    char const* name;
    int value;
  };
  for (auto const& [name, value] :
       {Mask{"attention_mask", 1}, Mask{"token_type_ids", 0}, Mask{"loss_mask", 1}}) {
    auto const* const mask = find(row, name);
    if (mask == nullptr) continue;
    if (!mask->is_array() || mask->size() != row.at("input_ids").size())
      return fmt::format("{} is not a list as long as input_ids", name);
    for (size_t i = 0; i < mask->size(); ++i)
      if ((*mask)[i] != value)
        return fmt::format(
            "{}[{}] = {:.40} (only {} is known; padding is left out of input_ids and labels, and "
            "what is not learnt has the label -100)",
            name, i, (*mask)[i].dump(), value);
  }
  return find(row, "position_ids") == nullptr ? "" : "field 'position_ids' is not read here";
}

}  // namespace fsllm
