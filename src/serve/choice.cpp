// SPDX-License-Identifier: Apache-2.0
#include "choice.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fsllm/core/utf8.hpp"
#include "fsllm/eval/continuation.hpp"

namespace fsllm::detail {

using nlohmann::ordered_json;

namespace {

int64_t code_points(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

std::string token_bytes(ServedModel const& model, int32_t id) {
  if (!model.tokenizer) return "";
  auto bytes = model.tokenizer->piece(id);
  return bytes.empty() ? model.tokenizer->decode({id}) : bytes;  // a special token
}

/// Another token whose text is that of `id` goes by its number: readers tell tokens apart by their texts.
std::string other_text(ServedModel const& model, int32_t other, int32_t id) {
  auto text = token_text(model, other);
  return other != id && text == token_text(model, id) ? fmt::format("token_id:{}", other) : text;
}

ordered_json chat_entry(ServedModel const& model, int32_t id, double logprob) {
  auto bytes = ordered_json::array();
  for (unsigned char const byte : token_bytes(model, id)) bytes.push_back(byte);
  return {{"token", token_text(model, id)}, {"logprob", logprob}, {"bytes", std::move(bytes)}};
}

}  // namespace

std::string token_text(ServedModel const& model, int32_t id) {
  auto const bytes = token_bytes(model, id);
  if (bytes.empty()) return fmt::format("token_id:{}", id);
  std::string buffer;
  if (valid_utf8(bytes, buffer) == bytes) return bytes;
  std::string text = "bytes:";
  for (unsigned char const byte : bytes) text += fmt::format("\\x{:02x}", byte);
  return text;
}

Choice::Choice(CompletionRequest const& request, ServedModel const& model, ServedPrompt const& prompt)
    : request_(request), model_(model), prompt_(prompt) {}

void Choice::take(NewTokenEvent event) {
  using End = NewTokenEvent::End;
  if (done()) return;
  if (!prompt_taken_) take_prompt(std::move(event.prompt));
  if (event.token) {
    ++tokens_;
    if (request_.logprobs) entries_.push_back({*event.token, std::move(event.logprobs)});
    if (event.end != End::stop_id) ids_.push_back(*event.token);
    if (!request_.stops.empty() && is_stopped(*model_.tokenizer, ids_, request_.stops))
      finish_reason_ = "stop";
  }
  if (!done() && event.end != End::no) finish_reason_ = event.end == End::stop_id ? "stop" : "length";
}

void Choice::take_prompt(std::vector<TokenLogprobs> logprobs) {
  prompt_taken_ = true;
  if (!request_.echo) text_offset_ = code_points(prompt_.text);
  if (!request_.echo || !request_.logprobs) return;
  entries_.push_back({prompt_.ids.front(), std::nullopt});
  for (size_t i = 0; i < logprobs.size(); ++i)
    entries_.push_back({prompt_.ids.at(i + 1), std::move(logprobs[i])});
}

std::string Choice::text() const {
  if (!model_.tokenizer) return "";
  bool const whole = done();
  return whole ? text_before_stop(*model_.tokenizer, ids_, request_.stops)
               : lasting_text(*model_.tokenizer, ids_, request_.stops);
}

/// The space that a text alone does not begin with, but has behind the prompt (SentencePiece).
std::string Choice::joint() const {
  if (!model_.tokenizer || ids_.empty()) return "";
  auto both = prompt_.ids;
  both.push_back(ids_.front());
  auto const decode = [&](std::vector<int32_t> const& ids) { return model_.tokenizer->decode(ids, true); };
  return decode(both) == decode(prompt_.ids) + " " + decode({ids_.front()}) ? " " : "";
}

std::string Choice::next_text() {
  std::string next;
  if (request_.echo && !began_) next = prompt_.text;
  began_ = true;
  auto const all = text();
  if (request_.echo && shown_ == 0 && !all.empty()) next += joint();
  if (all.size() > shown_) next += all.substr(shown_);
  shown_ = std::max(shown_, all.size());
  return next;
}

ordered_json Choice::next_logprobs() {
  if (!request_.logprobs) return nullptr;
  auto json = request_.chat ? chat_logprobs() : completion_logprobs();
  entries_.clear();
  return json;
}

/// The place of a token in the text (in code points), which moves behind it.
int64_t Choice::advance(int32_t id) {
  auto const here = text_offset_;
  auto const piece = model_.tokenizer ? model_.tokenizer->piece(id) : "";
  bool const cut = here == 0 && piece.starts_with(' ') && !prompt_.text.starts_with(' ');
  text_offset_ += code_points(piece) - (cut ? 1 : 0);
  return here;
}

ordered_json Choice::completion_logprobs() {
  ordered_json tokens = ordered_json::array(), logprobs = tokens, top = tokens, offsets = tokens;
  for (auto const& [id, known] : entries_) {
    tokens.push_back(token_text(model_, id));
    offsets.push_back(advance(id));
    logprobs.push_back(known ? ordered_json(known->logprob) : ordered_json());
    if (!known) {
      top.push_back(nullptr);
      continue;
    }
    auto best = ordered_json::object();
    for (auto const& [other, logprob] : known->top) best[other_text(model_, other, id)] = logprob;
    best[token_text(model_, id)] = known->logprob;
    top.push_back(std::move(best));
  }
  return {{"tokens", std::move(tokens)},
          {"token_logprobs", std::move(logprobs)},
          {"top_logprobs", std::move(top)},
          {"text_offset", std::move(offsets)}};
}

ordered_json Choice::chat_logprobs() const {
  auto content = ordered_json::array();
  for (auto const& [id, known] : entries_) {
    auto entry = chat_entry(model_, id, known->logprob);
    auto& top = entry["top_logprobs"] = ordered_json::array();
    for (auto const& [other, logprob] : known->top) top.push_back(chat_entry(model_, other, logprob));
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

}  // namespace fsllm::detail
