// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/requests.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "fsllm/model/generate.hpp"
#include "request_reader.hpp"

namespace fsllm {
namespace {

using detail::RequestReader;
using nlohmann::ordered_json;

/// The answer with the request's id in front.
std::string dumped(std::string const& id, ordered_json const& answer) {
  auto const fields = answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return "{\"id\":" + id + "," + fields.substr(1);
}

/// Rows of all requests to be scored together, and which request each belongs to.
struct Scoring {
  std::vector<ScoredRow> rows;
  std::vector<size_t> owners;
};

void answer_scoring(CausalLM& model, std::vector<RequestReader> const& requests, int64_t batch_tokens,
                    std::vector<std::string>& answers) {
  Scoring work;
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].type() == "generate_until") continue;
    bool const rolling = requests[i].type() == "loglikelihood_rolling";
    auto rows = rolling ? requests[i].windows() : std::vector{requests[i].continuation()};
    work.owners.insert(work.owners.end(), rows.size(), i);
    std::move(rows.begin(), rows.end(), std::back_inserter(work.rows));
  }
  auto const scores = score_rows(model, work.rows, batch_tokens);
  std::vector<RowScore> totals(requests.size());
  std::vector<int64_t> tokens(requests.size());
  for (size_t row = 0; row < scores.size(); ++row) {
    auto& total = totals[work.owners[row]];
    total.loglikelihood += scores[row].loglikelihood;
    total.is_greedy = total.is_greedy && scores[row].is_greedy;
    tokens[work.owners[row]] += work.rows[row].targets;
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    if (requests[i].type() == "generate_until") continue;
    ordered_json answer = {{"loglikelihood", totals[i].loglikelihood}};
    if (requests[i].type() == "loglikelihood") {
      answer["is_greedy"] = totals[i].is_greedy;
      answer["num_tokens"] = tokens[i];
    }
    answers[i] = dumped(requests[i].id(), answer);
  }
}

/// One text to continue and where its answer goes.
struct Continuation {
  size_t request;
  GenerateRow row;
  std::vector<std::string> stops;
};

size_t first_stop(std::string const& text, std::vector<std::string> const& stops) {
  size_t found = std::string::npos;
  for (auto const& stop : stops) found = std::min(found, text.find(stop));
  return found;
}

/// The text of `ids` without special tokens up to the first stop string, which may be a special token or hold
/// one (the harness looks for them with special tokens, and drops these afterwards).
std::string text_before_stop(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                             std::vector<std::string> const& stops) {
  size_t count = ids.size();
  auto const all = tokenizer.decode(ids, false);
  auto const stop = first_stop(all, stops);
  auto const beginning = [&](bool skip_special_tokens) {
    return tokenizer.decode({ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count)},
                            skip_special_tokens);
  };
  while (stop != std::string::npos && count > 0 && beginning(false).size() > stop) --count;
  auto text = beginning(true);
  // The token that the stop begins in may begin with some of the answer.
  if (count < ids.size() && !tokenizer.piece(ids[count]).empty())
    text += all.substr(beginning(false).size(), stop - beginning(false).size());
  return text.substr(0, first_stop(text, stops));
}

/// Whether the text of `ids` holds a stop string. Only its end is decoded at first: the rest was looked at
/// before.
bool is_stopped(Tokenizer const& tokenizer, std::vector<int32_t> const& ids,
                std::vector<std::string> const& stops) {
  size_t longest = 0;
  for (auto const& stop : stops) longest = std::max(longest, stop.size());
  auto const tail = std::min(ids.size(), longest + 8);
  auto const holds_stop = [&](size_t count, bool skip_special_tokens) {
    auto const text =
        tokenizer.decode({ids.end() - static_cast<std::ptrdiff_t>(count), ids.end()}, skip_special_tokens);
    return first_stop(text, stops) != std::string::npos;
  };
  for (bool const skip : {false, true})
    if (holds_stop(tail, skip) && (tail == ids.size() || holds_stop(ids.size(), skip))) return true;
  return false;
}

void generate_batch(CausalLM& model, Tokenizer const* tokenizer, std::vector<RequestReader> const& requests,
                    std::vector<Continuation> const& batch, std::vector<std::string>& answers) {
  std::vector<GenerateRow> rows;
  for (auto const& continuation : batch) rows.push_back(continuation.row);
  GenerateOptions options;
  options.stop_ids = model.config().eos_ids;
  if (tokenizer != nullptr && tokenizer->eos_id()) options.stop_ids.push_back(*tokenizer->eos_id());
  options.stop = [&](int64_t row, std::vector<int32_t> const& ids) {
    auto const& stops = batch[static_cast<size_t>(row)].stops;
    return !stops.empty() && is_stopped(*tokenizer, ids, stops);
  };
  auto const texts = generate(model, rows, options);
  for (size_t i = 0; i < batch.size(); ++i) {
    ordered_json answer;
    if (tokenizer != nullptr) answer["text"] = text_before_stop(*tokenizer, texts[i], batch[i].stops);
    answer["ids"] = texts[i];
    answers[batch[i].request] = dumped(requests[batch[i].request].id(), answer);
  }
}

void answer_generation(CausalLM& model, Tokenizer const* tokenizer,
                       std::vector<RequestReader> const& requests, int64_t batch_tokens,
                       std::vector<std::string>& answers) {
  constexpr size_t kMostRows = 64;
  // 256 is the harness' max_gen_toks.
  auto const default_tokens = std::min<int64_t>(256, model.config().max_positions / 2);
  std::vector<Continuation> work;
  for (size_t i = 0; i < requests.size(); ++i) {
    auto const& request = requests[i];
    if (request.type() != "generate_until") continue;
    auto const max_tokens = request.max_tokens(default_tokens);
    work.push_back({i,
                    {.prompt = request.prompt(max_tokens),
                     .max_tokens = max_tokens,
                     .temperature = request.temperature(),
                     .seed = static_cast<uint64_t>(request.integer("seed", 0))},
                    request.stop_strings()});
  }
  auto const length = [](Continuation const& c) { return static_cast<int64_t>(c.row.prompt.size()); };
  std::stable_sort(work.begin(), work.end(),
                   [&](auto const& a, auto const& b) { return length(a) > length(b); });
  for (size_t first = 0; first < work.size();) {
    auto const rows = static_cast<size_t>(std::max<int64_t>(1, batch_tokens / length(work[first])));
    auto const end = std::min({work.size(), first + rows, first + kMostRows});
    generate_batch(model, tokenizer, requests, {work.begin() + first, work.begin() + end}, answers);
    first = end;
  }
}

}  // namespace

std::vector<std::string> answer_requests(CausalLM& model, Tokenizer const* tokenizer,
                                         std::vector<Request> const& requests, int64_t batch_tokens) {
  std::vector<RequestReader> readers;
  readers.reserve(requests.size());
  for (auto const& request : requests) readers.emplace_back(request, model.config(), tokenizer);
  std::vector<std::string> answers(requests.size());
  answer_scoring(model, readers, batch_tokens, answers);
  answer_generation(model, tokenizer, readers, batch_tokens, answers);
  return answers;
}

}  // namespace fsllm
