// SPDX-License-Identifier: Apache-2.0
#include "fsllm/serve/openai.hpp"

#include <fmt/core.h>

#include <ctime>
#include <nlohmann/json.hpp>

#include "answer.hpp"

namespace fsllm {
namespace {

using detail::Answer;
using nlohmann::ordered_json;

/// How long a client may be gone before its rows leave.
constexpr std::chrono::milliseconds kPatience(100);

ordered_json describe(ServedModel const& model, int64_t created) {
  return {{"id", model.id},
          {"object", "model"},
          {"created", created},
          {"owned_by", "fsllm"},
          {"max_model_len", model.max_positions}};
}

/// An answer with what computes it; what is left of its rows leaves with it.
struct Work {
  Work(CompletionRequest request, ServedModel const& model, size_t index, Engine& engine)
      : answer(std::move(request), model), generation(engine.submit(index, answer.rows())) {}
  ~Work() { generation->leave(); }
  Answer answer;
  std::shared_ptr<Generation> generation;
};

void answer_whole(HttpExchange& exchange, Work& work) {
  while (!work.answer.done()) {
    work.answer.take(work.generation->wait(kPatience), *work.generation);
    if (exchange.client_gone()) return;
  }
  exchange.answer(200, work.answer.body());
}

/// Sends what a stream has to send next; false: that was all.
bool send_next(Work& work, HttpExchange::Send const& send, bool gone) {
  try {
    work.answer.take(work.generation->wait(kPatience), *work.generation);
    auto const events = work.answer.next_events();
    if (!events.empty() && !send(events)) return false;
    return !gone && !work.answer.done();
  } catch (HttpError const& error) {
    send("data: " + detail::error_body(error) + "\n\n");
    return false;
  }
}

using Parse = CompletionRequest (*)(std::string_view, std::vector<ServedModel> const&);

void complete(HttpExchange& exchange, Parse parse, std::vector<ServedModel> const& models, Engine& engine) {
  auto request = parse(exchange.body(), models);
  bool const stream = request.stream;
  auto const index = request.model;
  auto const work = std::make_shared<Work>(std::move(request), models[index], index, engine);
  if (!stream) return answer_whole(exchange, *work);
  exchange.stream([work](HttpExchange::Send const& send, bool gone) { return send_next(*work, send, gone); });
}

}  // namespace

std::vector<HttpRoute> openai_routes(std::vector<ServedModel> const& models, Engine& engine) {
  auto const created = static_cast<int64_t>(std::time(nullptr));
  auto const list = [&models, created](HttpExchange& exchange, std::string const&) {
    ordered_json json{{"object", "list"}, {"data", ordered_json::array()}};
    for (auto const& model : models) json["data"].push_back(describe(model, created));
    exchange.answer(200, detail::dump(json));
  };
  auto const one = [&models, created](HttpExchange& exchange, std::string const& id) {
    for (auto const& model : models)
      if (model.id == id) return exchange.answer(200, detail::dump(describe(model, created)));
    throw HttpError(404, fmt::format("model '{:.80}' (it is not served here).", id), "model",
                    "model_not_found");
  };
  auto const post = [&models, &engine](Parse parse) {
    return [&models, &engine, parse](HttpExchange& exchange, std::string const&) {
      complete(exchange, parse, models, engine);
    };
  };
  return {{"GET", "/v1/models", list},
          {"GET", "/v1/models/", one},
          {"POST", "/v1/completions", post(parse_completion_request)},
          {"POST", "/v1/chat/completions", post(parse_chat_request)},
          {"GET", "/health", [](HttpExchange& exchange, std::string const&) { exchange.answer(200, "{}"); }}};
}

}  // namespace fsllm
