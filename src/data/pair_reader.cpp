// SPDX-License-Identifier: Apache-2.0
#include "pair_reader.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "chat_reader.hpp"
#include "json_fields.hpp"

namespace fsllm {
namespace {

using nlohmann::json;

constexpr char const* kSameAnswers = "chosen and rejected are the same (there is no preference to learn)";

bool has(json const& row, char const* field) {
  auto const found = row.find(field);
  return found != row.end() && !found->is_null();
}

std::string read_ids(json const& row, char const* field, std::vector<int32_t>& ids) {
  if (!has(row, field)) return missing_field(row, field);
  auto const& list = row.at(field);
  if (!list.is_array()) return fmt::format("field '{}' is not a list but a JSON {}", field, list.type_name());
  for (auto const& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX)
      return fmt::format("{} holds {:.40}, which is no token id", field, id.dump());
    ids.push_back(id.get<int32_t>());
  }
  return "";
}

std::string read_token_pair(json const& row, Sample& sample) {
  sample.kind = SampleKind::tokens;
  std::vector<int32_t> prompt, chosen, rejected;
  auto why = read_ids(row, "prompt_input_ids", prompt);
  if (why.empty()) why = read_ids(row, "chosen_input_ids", chosen);
  if (why.empty()) why = read_ids(row, "rejected_input_ids", rejected);
  if (!why.empty()) return why;
  if (chosen == rejected) return kSameAnswers;
  auto const put = [&](std::vector<int32_t> const& answer, std::vector<int32_t>& ids,
                       std::vector<uint8_t>& is_target) {
    ids = prompt;
    ids.insert(ids.end(), answer.begin(), answer.end());
    is_target.assign(prompt.size(), 0);
    is_target.resize(ids.size(), 1);
  };
  put(chosen, sample.ids, sample.is_target);
  put(rejected, sample.rejected_ids, sample.rejected_is_target);
  return "";
}

std::string read_message_pair(json const& row, Sample& sample) {
  std::vector<ChatMessage> rejected;
  if (auto why = read_preference_messages(row, sample, rejected); !why.empty()) return why;
  auto const common = rejected.size() - 1;
  auto const chosen = sample.messages.size() - std::min(sample.messages.size(), row.at("chosen").size());
  bool same = row.at("chosen").size() == rejected.size();
  for (size_t i = 0; same && i < common; ++i)
    same = sample.messages[chosen + i].role == rejected[i].role &&
           sample.messages[chosen + i].content == rejected[i].content;
  if (!same) return "chosen and rejected differ before their last message (a pair has one prompt)";
  for (auto const* last : {&sample.messages.back(), &rejected.back()})
    if (last->role != "assistant" || !last->learnt)
      return "the last message of chosen or rejected is no answer that is to be learnt";
  if (sample.messages.back().content == sample.rejected) return kSameAnswers;
  return "";
}

/// `prompt`, or LLaMA-Factory's `instruction` and `input`.
std::string read_prompt(json const& row, Sample& sample) {
  if (has(row, "prompt") || !has(row, "instruction")) return read_text(row, "prompt", sample.instruction);
  auto why = read_text(row, "instruction", sample.instruction);
  if (why.empty() && has(row, "input")) why = read_text(row, "input", sample.input);
  return why;
}

}  // namespace

std::string read_pair(json const& row, Sample& sample) {
  if (has(row, "chosen_input_ids")) return read_token_pair(row, sample);
  for (auto const* field : {"chosen", "rejected"})
    if (!has(row, field))
      return missing_field(row, field) + "; train.loss learns from pairs: prompt, chosen, rejected";
  if (row.at("chosen").is_array()) return read_message_pair(row, sample);
  auto why = read_prompt(row, sample);
  if (why.empty()) why = read_text(row, "chosen", sample.output);
  if (why.empty()) why = read_text(row, "rejected", sample.rejected);
  return why.empty() && sample.output == sample.rejected ? kSameAnswers : why;
}

}  // namespace fsllm
