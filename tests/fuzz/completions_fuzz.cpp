// SPDX-License-Identifier: Apache-2.0
// Bodies of /v1/completions (those that name "messages": of /v1/chat/completions): an HttpError 4xx, or rows
// for the engine, whose answer, whole or streamed, is JSON.
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "answer.hpp"
#include "fsllm/serve/completion_request.hpp"

namespace {

using namespace fsllm;

std::vector<ServedModel> const& models() {
  static auto const served = [] {
    char const* root = std::getenv("FSLLM_SOURCE_DIR");
    auto const folder = std::filesystem::path(root == nullptr ? "." : root) / "tests/fuzz/corpus/tokenizer";
    auto const copy = std::filesystem::temp_directory_path() / ("fsllm_fuzz_" + std::to_string(::getpid()));
    std::filesystem::create_directories(copy);
    std::filesystem::copy_file(folder / "llama2.json", copy / "tokenizer.json",
                               std::filesystem::copy_options::overwrite_existing);
    std::shared_ptr<Tokenizer const> const tokenizer = load_tokenizer(copy);
    std::filesystem::remove_all(copy);
    auto const size = tokenizer->vocab_size();
    return std::vector<ServedModel>{
        {"text", 0, tokenizer, make_prompt_template({.name = "chatml"}), size, 256, {2}},
        {"question", 0, tokenizer, make_prompt_template({.name = "alpaca"}), size, 256, {2}},
        {"ids", 0, nullptr, std::nullopt, 100, 16, {2}}};
  }();
  return served;
}

/// A few tokens that follow from the prompt, with log-probabilities where they are asked for.
std::vector<NewTokenEvent> made_up(GenerateRow const& row, int64_t number, int64_t vocabulary) {
  using End = NewTokenEvent::End;
  auto const logprobs = [&](int32_t id) {
    TokenLogprobs made{-1.5, {}};
    for (int64_t k = 0; k < row.top_logprobs; ++k)
      made.top.emplace_back(static_cast<int32_t>((id + k) % vocabulary), -0.5 - static_cast<double>(k));
    return made;
  };
  std::vector<NewTokenEvent> events;
  if (row.max_tokens == 0) events.push_back({.row = number, .end = End::length});
  auto const count = std::min<int64_t>(row.max_tokens, 6);
  for (int64_t i = 0; i < count; ++i) {
    auto const id = row.prompt[static_cast<size_t>(i * 7) % row.prompt.size()];
    NewTokenEvent event{.row = number, .token = id, .end = i + 1 == count ? End::length : End::no};
    if (row.top_logprobs >= 0) event.logprobs = logprobs(id);
    events.push_back(std::move(event));
  }
  if (row.prompt_logprobs)
    for (size_t i = 1; i < row.prompt.size(); ++i) events.front().prompt.push_back(logprobs(row.prompt[i]));
  return events;
}

void answer(CompletionRequest const& request) {
  auto const& model = models()[request.model];
  for (bool const stream : {false, true}) {
    detail::Answer made(request, model);
    auto const rows = made.rows();
    Generation generation(request.model, rows);
    std::string streamed;
    for (size_t i = 0; i < rows.size(); ++i)
      for (auto const& event : made_up(rows[i], static_cast<int64_t>(i), model.vocab_size)) {
        made.take({event}, generation);
        if (stream) streamed += made.next_events();
      }
    if (!made.done() || (stream && !streamed.ends_with("data: [DONE]\n\n"))) std::abort();
    if (!stream && nlohmann::json::parse(made.body()).at("choices").size() != rows.size()) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(uint8_t const* data, size_t size) {
  std::string_view const body(reinterpret_cast<char const*>(data), size);
  bool const chat = body.find("messages") != body.npos;
  try {
    answer(chat ? parse_chat_request(body, models()) : parse_completion_request(body, models()));
  } catch (HttpError const& error) {
    if (error.status < 400 || error.status > 499) std::abort();
    if (!nlohmann::json::parse(detail::error_body(error)).contains("error")) std::abort();
  }
  return 0;
}
