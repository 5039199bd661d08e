// SPDX-License-Identifier: Apache-2.0
#include "sample_reader.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "chat_reader.hpp"
#include "fsllm/core/names.hpp"
#include "json_fields.hpp"
#include "pair_reader.hpp"
#include "row_fields.hpp"

namespace fsllm {

using nlohmann::json;

std::string missing_field(json const& row, std::string const& name) {
  std::vector<std::string> present;
  for (auto const& [key, value] : row.items()) present.push_back(key.substr(0, 40));
  if (present.size() > 20) present.resize(20);
  auto const rows = std::find_if(row.begin(), row.end(), [](json const& value) {
    return value.is_array() && !value.empty() && value.front().is_object();
  });
  return fmt::format("field '{}' is missing (the row has: {}{})", name, fmt::join(present, ", "),
                     rows == row.end()
                         ? ""
                         : "; is it one object around the rows of the file? Rows are one object "
                           "a line, or one array of objects");
}

std::string read_text(json const& row, std::string const& name, std::string& text) {
  auto const found = row.find(name);
  if (found == row.end() || found->is_null()) return missing_field(row, name);
  if (!found->is_string())
    return fmt::format("field '{}' is not a text but a JSON {}", name, found->type_name());
  text = found->get<std::string>();
  return "";
}

namespace {

/// The input may be absent. FS-LLM then trains on the word "None".
std::string read_input(json const& row, DataFormat const& format, DataConfig const& config,
                       std::string& text) {
  bool const absent = format.input.empty() || !row.contains(format.input) || row.at(format.input).is_null();
  if (!absent) return read_text(row, format.input, text);
  text = config.compat ? "None" : "";
  return "";
}

/// A text, number or truth value as text: categories and owners.
std::string read_label(json const& value, std::string const& name, std::string& text) {
  if (!value.is_primitive())
    return fmt::format("field '{}' is not a name but a JSON {}", name, value.type_name());
  text = value.is_string() ? value.get<std::string>() : value.dump();
  return "";
}

std::string read_tokens(json const& row, Sample& sample) {
  auto const& ids = row.at("input_ids");
  if (!row.contains("labels")) return missing_field(row, "labels");
  auto const& labels = row.at("labels");
  if (!ids.is_array() || !labels.is_array() || ids.size() != labels.size())
    return "input_ids and labels are not two lists of the same length";
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!ids[i].is_number_integer() || !labels[i].is_number_integer())
      return fmt::format("input_ids[{}] = {}, labels[{}] = {} are not whole numbers", i, ids[i].dump(), i,
                         labels[i].dump());
    auto const id = ids[i].get<int64_t>(), label = labels[i].get<int64_t>();
    if (id < 0 || id > INT32_MAX) return fmt::format("input_ids[{}] = {} is not a token id", i, id);
    if (label != -100 && label != id)
      return fmt::format("labels[{}] = {} is neither -100 nor input_ids[{}] = {}", i, label, i, id);
    sample.ids.push_back(static_cast<int32_t>(id));
    sample.is_target.push_back(label == id ? 1 : 0);
  }
  sample.kind = SampleKind::tokens;
  return check_token_masks(row);
}

std::string read_fields(json const& row, DataFormat const& format, DataConfig const& config, Sample& sample) {
  auto why = read_text(row, format.instruction, sample.instruction);
  if (why.empty()) why = read_input(row, format, config, sample.input);
  if (why.empty()) why = read_text(row, format.output, sample.output);
  return why;
}

std::string read_whole_text(json const& row, Sample& sample) {
  sample.kind = SampleKind::text;
  return read_text(row, "text", sample.output);
}

/// Tables write a field that a row does not have as null.
bool has(json const& row, std::string const& field) {
  auto const found = row.find(field);
  return found != row.end() && !found->is_null();
}

/// Rows of the user's own files say by their fields what they are.
std::string read_content(json const& row, DataFormat const& format, DataConfig const& config,
                         Sample& sample) {
  if (config.pairs) return read_pair(row, sample);
  if (has(row, "input_ids")) return read_tokens(row, sample);
  if (!format.custom || has(row, format.instruction)) return read_fields(row, format, config, sample);
  if (has(row, "messages")) return read_messages(row, sample);
  if (has(row, "conversations")) return read_conversations(row, sample);
  if (has(row, "chosen")) return read_preference(row, sample);
  if (has(row, "text")) return read_whole_text(row, sample);
  return read_fields(row, format, config, sample);
}

/// What else a row says of itself.
std::string read_meaning(json const& row, Sample& sample) {
  bool learnt = true;
  auto why = refuse_fields(row, kRefusedRowFields);
  if (why.empty()) why = read_learnt(row, learnt);
  if (why.empty() && !learnt) why = "a row that is not to be learnt (its weight, train or loss is 0)";
  return why.empty() ? read_turns_before(row, sample) : why;
}

struct OtherNames {
  char const* field;
  std::vector<std::string> names;
};

/// What others call the fields, likeliest first.
std::vector<OtherNames> const& other_names() {
  static std::vector<OtherNames> const names{
      {"instruction",
       {"question", "prompt", "query", "problem", "task", "request", "user", "frage", "title"}},
      {"output", {"answer", "response", "completion", "reply", "solution", "target", "assistant", "antwort"}},
      {"prompt", {"question", "instruction", "query"}},
      {"chosen", {"preferred", "better", "accepted", "winner"}},
      {"rejected", {"dispreferred", "worse", "loser"}},
      {"input", {"context", "passage"}},
      {"category", {"topic", "label", "class"}},
  };
  return names;
}

bool is_text(json const& row, std::string const& field) {
  return has(row, field) && row.at(field).is_string();
}

/// A text of the row under another name of `field`, in any case of letters.
std::string known_by_another_name(json const& row, std::string const& field) {
  for (auto const& [known, names] : other_names())
    if (known == field)
      for (auto const& name : names)
        for (auto const& [key, value] : row.items())
          if (lower_case(key) == name && value.is_string()) return key;
  return "";
}

/// Fields that mean something by themselves, in every data set and in files of the user's.
constexpr std::array kFields{"input_ids", "labels", "messages", "conversations",
                             "prompt",    "chosen", "rejected", "text"};
constexpr std::array kFieldsOfFiles{"prompt_input_ids",
                                    "chosen_input_ids",
                                    "rejected_input_ids",
                                    "system",
                                    "history",
                                    "weight",
                                    "train",
                                    "loss",
                                    "attention_mask",
                                    "token_type_ids",
                                    "loss_mask",
                                    "position_ids"};

template <class Use>
void for_each_field(DataFormat const& format, Use use) {
  for (auto const* field : {&format.instruction, &format.input, &format.output, &format.category})
    if (!field->empty()) use(*field);
  for (auto const* field : kFields) use(field);
  if (!format.custom) return;
  for (auto const* field : kFieldsOfFiles) use(field);
  for (auto const* field : kRefusedRowFields) use(field);
}

bool has_meaning(std::string_view column, DataFormat const& format) {
  bool found = false;
  for_each_field(format, [&](std::string_view field) { found = found || field == column; });
  return found;
}

/// The row under the names that are used here. A column that was renamed is not read as another field too.
std::string rename_columns(json const& row, DataFormat const& format, DataConfig const& config,
                           json& renamed) {
  renamed = row;
  for (auto const& [field, column] : config.columns)
    if (column != config.natural_field && has_meaning(column, format)) renamed.erase(column);
  for (auto const& [field, column] : config.columns) {
    bool const optional = field == "input" || field == "category";
    if (row.contains(column))
      renamed[field] = row.at(column);
    else if (!optional)
      return missing_field(row, column) + ", which data.columns names";
  }
  return "";
}

}  // namespace

std::string columns_to_write(json const& row, DataConfig const& config) {
  auto const needed = config.pairs ? std::vector<std::string>{"prompt", "chosen", "rejected"}
                                   : std::vector<std::string>{"instruction", "output"};
  std::vector<std::string> parts, used;
  auto const take = [&](std::string const& field, std::string const& column) {
    used.push_back(column);
    if (column != field) parts.push_back(fmt::format("{}: {}", field, column));
  };
  for (auto const& field : needed)
    if (auto const other = known_by_another_name(row, field); is_text(row, field) || !other.empty())
      take(field, is_text(row, field) ? field : other);
  bool const of_pairs = has(row, "chosen") || has(row, "rejected");
  if (used.size() < needed.size() && of_pairs != config.pairs) return "";
  if (used.size() < needed.size()) {  // then by their order
    parts.clear();
    used.clear();
    for (auto const& [key, value] : row.items())
      if (value.is_string() && used.size() < needed.size()) take(needed[used.size()], key);
    if (used.size() < needed.size()) return "";
  }
  for (auto const* field : {"input", "category"})
    if (auto const other = known_by_another_name(row, field); !other.empty() && !has(row, field))
      take(field, other);
  return parts.empty() ? "" : fmt::format(". Write data.columns: {{{}}}", fmt::join(parts, ", "));
}

std::vector<std::string> sample_fields(DataFormat const& format, DataConfig const& config) {
  std::vector<std::string> fields;
  for_each_field(format, [&](std::string_view field) { fields.emplace_back(field); });
  if (!config.natural_field.empty()) fields.push_back(config.natural_field);
  if (!format.custom) return fields;
  for (auto const& [field, column] : config.columns) fields.push_back(column);
  for (auto const& [field, names] : other_names()) fields.insert(fields.end(), names.begin(), names.end());
  return fields;
}

std::string read_sample(json const& given, DataFormat const& format, DataConfig const& config,
                        Sample& sample) {
  json renamed;
  if (!config.columns.empty())
    if (auto why = rename_columns(given, format, config, renamed); !why.empty()) return why;
  auto const& row = config.columns.empty() ? given : renamed;
  auto why = read_content(row, format, config, sample);
  if (why.empty() && format.custom) why = read_meaning(row, sample);
  auto const& category = format.category;
  if (why.empty() && !category.empty() && row.contains(category) && !row.at(category).is_null())
    why = read_label(row.at(category), category, sample.category);
  if (why.empty() && format.finish != nullptr) format.finish(sample);
  if (!why.empty() || config.splitter != "natural") return why;
  auto const& field = config.natural_field;
  if (!row.contains(field) || row.at(field).is_null()) return missing_field(row, field);
  return read_label(row.at(field), field, sample.owner);
}

}  // namespace fsllm
