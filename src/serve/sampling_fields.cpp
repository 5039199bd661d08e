// SPDX-License-Identifier: Apache-2.0
#include "sampling_fields.hpp"

#include <fmt/core.h>

#include <random>

#include "fsllm/core/error.hpp"
#include "fsllm/core/names.hpp"

namespace fsllm::detail {
namespace {

/// Below it a division by the temperature leaves the range of numbers; the draw is the greedy one long
/// before.
constexpr double kLeastTemperature = 1e-5;

uint64_t drawn_seed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

std::vector<std::string> read_stops(RequestFields& fields, ServedModel const& model) {
  std::vector<std::string> stops;
  if (!fields.has("stop")) return stops;
  auto const& given = fields.at("stop");
  for (auto const& stop : given.is_array() ? given : nlohmann::json::array({given})) {
    if (!stop.is_string() || stop.get_ref<std::string const&>().size() > kLongestStop)
      throw HttpError(400,
                      fmt::format("'stop' holds {} (texts of up to {} bytes are needed). Correct it.",
                                  shown(stop), kLongestStop),
                      "stop");
    if (!stop.get_ref<std::string const&>().empty()) stops.push_back(stop);
  }
  if (stops.size() > kMostStops)
    throw HttpError(400,
                    fmt::format("'stop' holds {} texts ({} at most). Give fewer.", stops.size(), kMostStops),
                    "stop");
  if (!stops.empty() && !model.tokenizer)
    throw HttpError(400, "'stop' (the model has no tokenizer, so its answers have no text). Leave it out.",
                    "stop");
  return stops;
}

}  // namespace

size_t read_model(RequestFields& fields, std::vector<ServedModel> const& models) {
  if (!fields.has("model")) return 0;
  auto const id = fields.text("model", "");
  std::vector<std::string> known;
  for (size_t i = 0; i < models.size(); ++i) {
    if (models[i].id == id) return i;
    known.push_back(models[i].id);
  }
  throw HttpError(404, fmt::format("model '{:.80}' (it is not served here).{}", id, did_you_mean(id, known)),
                  "model", "model_not_found");
}

void read_sampling(RequestFields& fields, ServedModel const& model, CompletionRequest& request) {
  request.n = fields.integer("n", 1, 1, kMostChoices);
  request.temperature = fields.number("temperature", 1, 0, 1e6);
  if (request.temperature < kLeastTemperature) request.temperature = 0;
  request.top_p = fields.number("top_p", 1, 0, 1);
  if (request.top_p == 0)
    throw HttpError(400, "'top_p' = 0 (no token is left). Give temperature 0 for greedy answers.", "top_p");
  request.top_k = std::max<int64_t>(0, fields.integer("top_k", 0, -1, model.vocab_size));
  request.repetition_penalty = fields.number("repetition_penalty", 1, 1e-2, 100);
  request.seed = fields.has("seed") ? static_cast<uint64_t>(fields.integer("seed", 0, INT64_MIN, INT64_MAX))
                                    : drawn_seed();
  request.stops = read_stops(fields, model);
  request.stream = fields.flag("stream", false);
  if (!fields.has("stream_options")) return;
  auto const& options = fields.at("stream_options");
  bool const sound =
      options.is_object() && (!options.contains("include_usage") || options.at("include_usage").is_boolean());
  if (!sound || !request.stream)
    throw HttpError(
        400,
        fmt::format("'stream_options' = {} ({{\"include_usage\": true}} beside \"stream\": true is "
                    "known). Correct it.",
                    shown(options)),
        "stream_options");
  request.include_usage = options.value("include_usage", false);
}

std::vector<int32_t> encode_text(ServedModel const& model, std::string const& text, bool add_special_tokens,
                                 char const* field) {
  if (!model.tokenizer)
    throw HttpError(
        400, fmt::format("'{}' is a text (the model's folder holds no tokenizer). Give token ids.", field),
        field);
  try {
    return add_special_tokens ? model.tokenizer->encode_beginning(text)
                              : model.tokenizer->encode(text, false);
  } catch (Error const& error) {
    throw HttpError(400, fmt::format("'{}': {}", field, error.what()), field);
  }
}

void check_room(CompletionRequest const& request, ServedModel const& model, char const* field) {
  for (auto const& prompt : request.prompts) {
    auto const size = static_cast<int64_t>(prompt.ids.size());
    if (size == 0)
      throw HttpError(
          400, fmt::format("'{}' is empty (an answer needs a token to start from). Give one.", field), field);
    if (size + request.max_tokens > model.max_positions)
      throw HttpError(400,
                      fmt::format("{} tokens in '{}' and 'max_tokens' = {} (the model has {} positions). "
                                  "Shorten one of them.",
                                  size, field, request.max_tokens, model.max_positions),
                      field, "context_length_exceeded");
  }
  auto const rows = static_cast<int64_t>(request.prompts.size()) * request.n;
  if (rows > kMostRows)
    throw HttpError(400,
                    fmt::format("{} prompts with n = {} ({} choices, {} at most). Send several requests.",
                                request.prompts.size(), request.n, rows, kMostRows),
                    field);
}

}  // namespace fsllm::detail
