// SPDX-License-Identifier: Apache-2.0
#include "fsllm/serve/completion_request.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

#include "sampling_fields.hpp"

namespace fsllm {
namespace {

using detail::RequestFields;
using detail::shown;
using nlohmann::json;

bool all_of(json const& list, bool (*predicate)(json const&)) {
  return std::all_of(list.begin(), list.end(), predicate);
}

ServedPrompt prompt_of_ids(json const& ids, ServedModel const& model) {
  ServedPrompt prompt;
  for (auto const& id : ids) {
    bool const valid = id.is_number_integer() && id.get<double>() >= 0 &&
                       id.get<double>() < static_cast<double>(model.vocab_size);
    if (!valid)
      throw HttpError(400,
                      fmt::format("'prompt' holds {} (token ids of this model are 0 to {}). Correct it.",
                                  shown(id), model.vocab_size - 1),
                      "prompt");
    prompt.ids.push_back(id.get<int32_t>());
  }
  if (model.tokenizer) prompt.text = model.tokenizer->decode(prompt.ids, true);
  return prompt;
}

ServedPrompt prompt_of_text(json const& text, ServedModel const& model) {
  ServedPrompt prompt{text.get<std::string>(), {}};
  // A tokenizer's BOS alone would be an answer to nothing.
  if (!prompt.text.empty()) prompt.ids = detail::encode_text(model, prompt.text, true, "prompt");
  return prompt;
}

/// A text, token ids, or a list of either.
std::vector<ServedPrompt> read_prompts(json const& given, ServedModel const& model) {
  auto const is_number = +[](json const& each) { return each.is_number(); };
  auto const is_text = +[](json const& each) { return each.is_string(); };
  auto const is_list = +[](json const& each) { return each.is_array(); };
  std::vector<ServedPrompt> prompts;
  if (given.is_string()) {
    prompts.push_back(prompt_of_text(given, model));
  } else if (given.is_array() && all_of(given, is_number)) {
    prompts.push_back(prompt_of_ids(given, model));
  } else if (given.is_array() && (all_of(given, is_text) || all_of(given, is_list))) {
    if (given.size() > static_cast<size_t>(detail::kMostRows))
      throw HttpError(400,
                      fmt::format("'prompt' holds {} prompts ({} at most). Send several requests.",
                                  given.size(), detail::kMostRows),
                      "prompt");
    for (auto const& each : given)
      prompts.push_back(each.is_string() ? prompt_of_text(each, model) : prompt_of_ids(each, model));
  } else {
    throw HttpError(
        400,
        fmt::format("'prompt' = {} (a text, a list of token ids, or a list of either is needed). Correct it.",
                    shown(given)),
        "prompt");
  }
  return prompts;
}

}  // namespace

CompletionRequest parse_completion_request(std::string_view body, std::vector<ServedModel> const& models) {
  RequestFields fields(body);
  CompletionRequest request;
  request.model = detail::read_model(fields, models);
  auto const& model = models[request.model];
  detail::read_sampling(fields, model, request);
  request.max_tokens = fields.integer("max_tokens", 16, 0, model.max_positions);
  request.echo = fields.flag("echo", false);
  if (fields.has("logprobs")) request.logprobs = fields.integer("logprobs", 0, 0, detail::kMostLogprobs);
  // Greedy choices are all alike: HELM asks for several.
  bool const alike = request.temperature == 0 || request.max_tokens == 0;
  if (fields.integer("best_of", request.n, 1, detail::kMostChoices) != request.n && !alike)
    throw HttpError(400, "'best_of' differs from 'n' (sampled choices are not compared here). Leave it out.",
                    "best_of");
  request.prompts = read_prompts(fields.at("prompt"), model);
  fields.finish();
  detail::check_room(request, model, "prompt");
  return request;
}

}  // namespace fsllm
