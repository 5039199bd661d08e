// SPDX-License-Identifier: Apache-2.0
#include <fmt/core.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "fsllm/serve/completion_request.hpp"
#include "sampling_fields.hpp"

namespace fsllm {
namespace {

using detail::RequestFields;
using detail::shown;
using nlohmann::json;

constexpr char const* kField = "messages";

/// A text, or parts of type text, which are joined.
std::string content_of(json const& message) {
  auto const found = message.find("content");
  if (found != message.end() && found->is_string()) return *found;
  std::string text;
  bool sound = found != message.end() && found->is_array() && !found->empty();
  for (size_t i = 0; sound && i < found->size(); ++i) {
    auto const& part = found->at(i);
    sound = part.is_object() && part.value("type", json()) == "text" && part.contains("text") &&
            part.at("text").is_string();
    if (sound) text += part.at("text").get_ref<std::string const&>();
  }
  if (!sound)
    throw HttpError(
        400,
        fmt::format("'messages' holds {} (its content is neither a text nor a list of parts of type "
                    "text). Correct it.",
                    shown(message)),
        kField);
  return text;
}

std::vector<ChatMessage> read_messages(json const& given) {
  if (!given.is_array() || given.empty())
    throw HttpError(
        400,
        fmt::format("'messages' = {} (a list of {{\"role\", \"content\"}} is needed). Correct it.",
                    shown(given)),
        kField);
  std::vector<ChatMessage> messages;
  for (auto const& message : given) {
    auto const role = message.is_object() ? message.value("role", json()) : json();
    if (role != "system" && role != "developer" && role != "user" && role != "assistant")
      throw HttpError(400,
                      fmt::format("'messages' holds {} (the role is system, user or assistant). Correct it.",
                                  shown(message)),
                      kField);
    messages.push_back({role == "developer" ? "system" : role.get<std::string>(), content_of(message)});
  }
  return messages;
}

/// A template that is no chat takes one question.
std::string prompt_of(std::vector<ChatMessage> const& messages, ServedModel const& model) {
  auto const& prompt = *model.prompt;
  if (prompt.chat) return chat_prompt(prompt, messages, *model.tokenizer);
  if (messages.size() != 1 || messages.front().role != "user")
    throw HttpError(
        400,
        fmt::format("'messages' ('{}' answers in the prompt template {}, which is no chat and takes "
                    "one question). Send one message of role user.",
                    model.id, prompt.name),
        kField);
  Sample question;
  question.instruction = messages.front().content;
  return prompt_text(prompt, question);
}

ServedPrompt read_prompt(RequestFields& fields, ServedModel const& model) {
  auto const messages = read_messages(fields.at(kField));
  if (!model.prompt || !model.tokenizer)
    throw HttpError(400,
                    fmt::format("'{}' has no chat template. Use /v1/completions, or start fsllm_serve with "
                                "--prompt_template.",
                                model.id),
                    "model");
  try {
    ServedPrompt prompt{prompt_of(messages, model), {}};
    prompt.ids = detail::encode_text(model, prompt.text, !model.prompt->chat, kField);
    return prompt;
  } catch (Error const& error) {  // raise_exception of the template: roles out of order, say
    throw HttpError(400, fmt::format("'messages': {}", error.what()), kField);
  }
}

/// OpenAI's newer name, and the older.
char const* limit_field(RequestFields& fields) {
  bool const newer = fields.has("max_completion_tokens"), older = fields.has("max_tokens");
  if (newer && older && fields.at("max_completion_tokens") != fields.at("max_tokens"))
    throw HttpError(400, "'max_tokens' and 'max_completion_tokens' differ (they mean the same). Give one.",
                    "max_tokens");
  return newer ? "max_completion_tokens" : "max_tokens";
}

}  // namespace

CompletionRequest parse_chat_request(std::string_view body, std::vector<ServedModel> const& models) {
  RequestFields fields(body);
  CompletionRequest request;
  request.chat = true;
  request.model = detail::read_model(fields, models);
  auto const& model = models[request.model];
  detail::read_sampling(fields, model, request);
  auto const* const limit = limit_field(fields);
  bool const wanted = fields.flag("logprobs", false);
  auto const best = fields.integer("top_logprobs", 0, 0, detail::kMostLogprobs);
  if (best > 0 && !wanted)
    throw HttpError(400,
                    "'top_logprobs' without \"logprobs\": true (there is nowhere to write them). Add it.",
                    "top_logprobs");
  if (wanted) request.logprobs = best;
  request.prompts.push_back(read_prompt(fields, model));
  auto const room = model.max_positions - static_cast<int64_t>(request.prompts.front().ids.size());
  request.max_tokens = fields.integer(limit, std::max<int64_t>(0, room), 0, model.max_positions);
  fields.finish();
  detail::check_room(request, model, kField);
  return request;
}

}  // namespace fsllm
