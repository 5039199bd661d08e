// SPDX-License-Identifier: Apache-2.0
#include "request_reader.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>

#include "fsllm/core/error.hpp"
#include "fsllm/core/json_text.hpp"
#include "fsllm/core/names.hpp"
#include "text_rows.hpp"

namespace fsllm::detail {

using nlohmann::json;

RequestReader::RequestReader(Request const& request, ModelConfig const& config, Tokenizer const* tokenizer)
    : place_(request.place), config_(config), tokenizer_(tokenizer) {
  if (json_depth(request.json) > kDeepestJson)
    refuse(fmt::format("brackets stand {} deep in one another ({} at most). Correct it.",
                       json_depth(request.json), kDeepestJson));
  json_ = json::parse(request.json, nullptr, false);
  if (!json_.is_object()) refuse("not a JSON object. Write one request a line.");
  if (!has("id")) refuse("'id' is missing (answers are told apart by it). Add one.");
  std::vector<std::string> const known = {"loglikelihood", "loglikelihood_rolling", "generate_until"};
  type_ = text("type");
  if (std::find(known.begin(), known.end(), type_) == known.end())
    refuse(fmt::format("type = '{}' (not a kind of request).{}", type_, did_you_mean(type_, known)));
  id_ = json_member(request.json, "id");
  refuse_unknown();
}

/// What is not read would change nothing, without a word.
void RequestReader::refuse_unknown() const {
  static std::map<std::string, std::vector<std::string>> const fields = {
      {"loglikelihood", {"context", "continuation", "context_ids", "continuation_ids"}},
      {"loglikelihood_rolling", {"text", "ids"}},
      {"generate_until",
       {"context", "context_ids", "until", "stop", "max_tokens", "max_gen_toks", "max_new_tokens",
        "temperature", "top_k", "top_p", "repetition_penalty", "num_beams", "length_penalty", "do_sample",
        "seed"}}};
  auto known = fields.at(type_);
  known.insert(known.end(), {"id", "type"});
  for (auto const& [key, value] : json_.items())
    if (std::find(known.begin(), known.end(), key) == known.end() && !value.is_null())
      refuse(fmt::format("'{:.40}' (no field of a {} request).{}", key, type_,
                         nearest_name(key, known).empty() ? " Remove it." : did_you_mean(key, known)));
}

char const* RequestReader::one_of(std::initializer_list<char const*> names) const {
  char const* found = nullptr;
  for (auto const* name : names) {
    if (!has(name) || json_[name].is_null()) continue;
    if (found != nullptr && json_[found] != json_[name])
      refuse(fmt::format("'{}' = {:.60} and '{}' = {:.60} (they mean the same). Give one.", found,
                         json_[found].dump(), name, json_[name].dump()));
    found = name;
  }
  return found != nullptr ? found : *names.begin();
}

GenerateRow RequestReader::generated(int64_t default_tokens) const {
  GenerateRow row;
  row.max_tokens = integer(one_of({"max_tokens", "max_gen_toks", "max_new_tokens"}), default_tokens);
  row.prompt = prompt(row.max_tokens);
  row.temperature = temperature();
  row.seed = static_cast<uint64_t>(integer("seed", 0));
  row.top_k = integer("top_k", 0);
  row.top_p = number("top_p", 1);
  row.repetition_penalty = number("repetition_penalty", 1);
  row.num_beams = integer("num_beams", 1);
  row.length_penalty = number("length_penalty", 1);
  if (row.num_beams == 0) refuse("'num_beams' = 0 (1 is no search, above 1 that many beams). Correct it.");
  if (row.num_beams > 1 && (row.temperature > 0 || row.repetition_penalty != 1))
    refuse(fmt::format(
        "'num_beams' = {} with a temperature or a repetition penalty (beams are ordered by the model's "
        "own probabilities). Leave these out.",
        row.num_beams));
  if (row.top_p == 0 || row.top_p > 1)
    refuse(fmt::format("'top_p' = {} (a probability above 0 is needed; 1 is all tokens). Correct it.",
                       row.top_p));
  if (row.repetition_penalty == 0)
    refuse("'repetition_penalty' = 0 (1 is none, above 1 repeats less). Correct it.");
  return row;
}

double RequestReader::temperature() const {
  if (!has("do_sample") || json_["do_sample"].is_null()) return number("temperature", 0);
  if (!json_["do_sample"].is_boolean())
    refuse(fmt::format("'do_sample' = {} (true or false is needed). Correct it.", json_["do_sample"].dump()));
  bool const sampled = json_["do_sample"].get<bool>();
  double const given = number("temperature", 1);
  if (sampled && given == 0)
    refuse("'do_sample' = true and 'temperature' = 0 (greedy). Correct one of them.");
  return sampled ? given : 0;
}

void RequestReader::refuse(std::string const& message) const {
  fail(fmt::format("{}: {}", place_, message));
}

std::string RequestReader::text(char const* key) const {
  auto const found = json_.find(key);
  if (found == json_.end()) refuse(fmt::format("'{}' is missing. Add it.", key));
  if (!found->is_string()) refuse(fmt::format("'{}' is not a text. Correct it.", key));
  return found->get<std::string>();
}

std::vector<int32_t> RequestReader::ids(char const* key) const {
  auto const found = json_.find(key);
  if (found == json_.end()) refuse(fmt::format("'{}' is missing. Add it.", key));
  if (!found->is_array()) refuse(fmt::format("'{}' is not a list of token ids. Correct it.", key));
  std::vector<int32_t> ids;
  for (auto const& id : *found) {
    bool const valid = id.is_number_integer() && id.get<double>() >= 0 &&
                       id.get<double>() < static_cast<double>(config_.vocab_size);
    if (!valid)
      refuse(fmt::format("'{}' holds {} (token ids of this model are 0 .. {}). Correct it.", key, id.dump(),
                         config_.vocab_size - 1));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

int64_t RequestReader::integer(char const* key, int64_t fallback) const {
  if (!has(key) || json_[key].is_null()) return fallback;
  auto const& value = json_[key];
  bool const valid = value.is_number_integer() && value.get<double>() >= 0 && value.get<double>() < 9e18;
  if (!valid)
    refuse(fmt::format("'{}' = {} (a whole number from 0 is needed). Correct it.", key, value.dump()));
  return value.get<int64_t>();
}

double RequestReader::number(char const* key, double fallback) const {
  if (!has(key) || json_[key].is_null()) return fallback;
  auto const& value = json_[key];
  if (!value.is_number() || !std::isfinite(value.get<double>()) || value.get<double>() < 0)
    refuse(fmt::format("'{}' = {} (a number from 0 is needed). Correct it.", key, value.dump()));
  return value.get<double>();
}

Tokenizer const& RequestReader::tokenizer() const {
  if (tokenizer_ == nullptr)
    refuse("a text (the model's folder holds no tokenizer). Give token ids, or add the tokenizer's files.");
  return *tokenizer_;
}

int32_t RequestReader::prefix_id() const {
  if (!tokenizer().bos_id() && !tokenizer().eos_id())
    refuse("an empty context (the tokenizer has neither BOS nor EOS to stand for it). Give one.");
  return detail::prefix_id(tokenizer());
}

ScoredRow RequestReader::text_continuation() const {
  auto const context = text("context"), continuation = text("continuation");
  if (trailing_space(context) == context.size()) prefix_id();
  return ScoredContext(tokenizer(), context).row(continuation);
}

ScoredRow RequestReader::continuation() const {
  ScoredRow row;
  if (has("context_ids") || has("continuation_ids")) {
    row.ids = ids("context_ids");
    auto const scored = ids("continuation_ids");
    if (row.ids.empty()) refuse("'context_ids' is empty (nothing predicts the first token). Start with BOS.");
    std::copy(scored.begin(), scored.end(), std::back_inserter(row.ids));
    row.targets = static_cast<int64_t>(scored.size());
  } else {
    row = text_continuation();
  }
  if (row.targets < 1) refuse("an empty continuation (there is nothing to score). Give at least one token.");
  if (row.targets > config_.max_positions)
    refuse(fmt::format("a continuation of {} tokens (the model has {} positions). Shorten it.", row.targets,
                       config_.max_positions));
  return row;
}

std::vector<ScoredRow> RequestReader::windows() const {
  if (!has("ids")) {
    auto const whole = text("text");
    auto const tokens = tokenizer().encode(whole, false);
    return tokens.empty() ? std::vector<ScoredRow>()
                          : rolling_windows(tokens, prefix_id(), config_.max_positions);
  }
  auto const given = ids("ids");
  if (given.empty()) return {};
  return rolling_windows({given.begin() + 1, given.end()}, given.front(), config_.max_positions);
}

std::vector<int32_t> RequestReader::prompt(int64_t max_tokens) const {
  if (max_tokens >= config_.max_positions)
    refuse(
        fmt::format("max_tokens = {} (the model has {} positions, one at least for the context). Lower it.",
                    max_tokens, config_.max_positions));
  std::vector<int32_t> prompt;
  if (has("context_ids")) {
    prompt = ids("context_ids");
    if (prompt.empty()) refuse("'context_ids' is empty (generation needs a token to start from). Give BOS.");
  } else {
    auto const context = text("context");
    prompt = tokenizer().encode_beginning(context);
    if (prompt.empty()) prompt.push_back(prefix_id());
  }
  auto const room = static_cast<size_t>(config_.max_positions - max_tokens);
  if (prompt.size() > room) prompt.erase(prompt.begin(), prompt.end() - static_cast<std::ptrdiff_t>(room));
  return prompt;
}

std::vector<std::string> RequestReader::stop_strings() const {
  std::vector<std::string> stops;
  auto const* const key = one_of({"until", "stop"});
  if (!has(key) || json_[key].is_null()) return stops;
  auto const& until = json_[key];
  for (auto const& stop : until.is_array() ? until : json::array({until})) {
    if (!stop.is_string())
      refuse(fmt::format("'{}' holds {} (a text is needed). Correct it.", key, stop.dump()));
    if (!stop.get<std::string>().empty()) stops.push_back(stop.get<std::string>());
  }
  if (!stops.empty() && tokenizer_ == nullptr)
    refuse(fmt::format(
        "'{}' (stop strings need a tokenizer, and the model's folder holds none). Leave it empty.", key));
  return stops;
}

}  // namespace fsllm::detail
