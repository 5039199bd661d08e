// SPDX-License-Identifier: Apache-2.0
#include "answer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

namespace fsllm::detail {

using nlohmann::ordered_json;

namespace {

std::string fresh_id(bool chat) {
  std::random_device device;
  return fmt::format("{}-{:08x}{:08x}{:08x}", chat ? "chatcmpl" : "cmpl", device(), device(), device());
}

}  // namespace

std::string dump(ordered_json const& json) {
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string error_body(HttpError const& error) {
  auto const or_null = [](std::string const& text) {
    return text.empty() ? ordered_json() : ordered_json(text);
  };
  auto const type = error.status < 500 ? "invalid_request_error" : "server_error";
  return dump({{"error",
                {{"message", error.what()},
                 {"type", type},
                 {"param", or_null(error.param)},
                 {"code", or_null(error.code)}}}});
}

Answer::Answer(CompletionRequest request, ServedModel const& model)
    : request_(std::move(request)),
      model_(model),
      id_(fresh_id(request_.chat)),
      created_(std::time(nullptr)) {
  for (auto const& prompt : request_.prompts)
    for (int64_t j = 0; j < request_.n; ++j) choices_.emplace_back(request_, model_, prompt);
  begun_.resize(choices_.size());
  ended_.resize(choices_.size());
}

std::vector<GenerateRow> Answer::rows() const {
  std::vector<GenerateRow> rows;
  for (auto const& prompt : request_.prompts)
    for (int64_t j = 0; j < request_.n; ++j)
      rows.push_back(
          {.prompt = prompt.ids,
           .max_tokens = request_.max_tokens,
           .temperature = request_.temperature,
           .seed = request_.seed + static_cast<uint64_t>(j),
           .top_k = request_.top_k,
           .top_p = request_.top_p,
           .repetition_penalty = request_.repetition_penalty,
           .top_logprobs = request_.logprobs ? std::min(*request_.logprobs, model_.vocab_size) : -1,
           .prompt_logprobs = request_.echo && request_.logprobs});
  return rows;
}

void Answer::take(std::vector<NewTokenEvent> events, Generation& generation) {
  for (auto& event : events) {
    auto const index = static_cast<size_t>(event.row);
    bool const ended = event.end != NewTokenEvent::End::no;
    choices_[index].take(std::move(event));
    if (choices_[index].done() && !ended) generation.leave(index);
  }
}

bool Answer::done() const {
  return std::all_of(choices_.begin(), choices_.end(), [](Choice const& choice) { return choice.done(); });
}

ordered_json Answer::frame(char const* object) const {
  return {{"id", id_}, {"object", object}, {"created", created_}, {"model", model_.id}};
}

ordered_json Answer::usage() const {
  int64_t asked = 0, answered = 0;
  for (auto const& prompt : request_.prompts) asked += static_cast<int64_t>(prompt.ids.size());
  for (auto const& choice : choices_) answered += choice.tokens();
  return {{"prompt_tokens", asked}, {"completion_tokens", answered}, {"total_tokens", asked + answered}};
}

std::string Answer::body() {
  auto json = frame(request_.chat ? "chat.completion" : "text_completion");
  auto& list = json["choices"] = ordered_json::array();
  for (size_t i = 0; i < choices_.size(); ++i) {
    auto& choice = choices_[i];
    ordered_json entry{{"index", i}};
    if (request_.chat)
      entry["message"] = {{"role", "assistant"}, {"content", choice.next_text()}};
    else
      entry["text"] = choice.next_text();
    entry["logprobs"] = choice.next_logprobs();
    entry["finish_reason"] = choice.finish_reason();
    list.push_back(std::move(entry));
  }
  json["usage"] = usage();
  return dump(json);
}

/// What is new of one choice; null where nothing is.
ordered_json Answer::chunk(size_t index) {
  auto& choice = choices_[index];
  if (ended_[index]) return nullptr;
  auto text = choice.next_text();
  if (text.empty() && !choice.done() && (begun_[index] || !request_.chat)) return nullptr;
  ordered_json entry{{"index", index}};
  if (request_.chat) {
    auto& delta = entry["delta"] = ordered_json::object();
    if (!begun_[index]) delta["role"] = "assistant";
    delta["content"] = std::move(text);
  } else {
    entry["text"] = std::move(text);
  }
  entry["logprobs"] = choice.next_logprobs();
  entry["finish_reason"] = choice.done() ? ordered_json(choice.finish_reason()) : ordered_json();
  begun_[index] = true;
  ended_[index] = choice.done();
  return entry;
}

std::string Answer::event(ordered_json choices) const {
  auto json = frame(request_.chat ? "chat.completion.chunk" : "text_completion");
  bool const last = choices.empty();
  json["choices"] = std::move(choices);
  if (request_.include_usage) json["usage"] = last ? usage() : ordered_json();
  return "data: " + dump(json) + "\n\n";
}

std::string Answer::next_events() {
  std::string events;
  if (closed_) return events;
  for (size_t i = 0; i < choices_.size(); ++i)
    if (auto entry = chunk(i); !entry.is_null()) events += event(ordered_json::array({std::move(entry)}));
  closed_ = done();
  if (closed_ && request_.include_usage) events += event(ordered_json::array());
  if (closed_) events += "data: [DONE]\n\n";
  return events;
}

}  // namespace fsllm::detail
