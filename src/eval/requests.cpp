// SPDX-License-Identifier: Apache-2.0
#include "fsllm/eval/requests.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "request_reader.hpp"

namespace fsllm {
namespace {

using detail::RequestReader;
using nlohmann::ordered_json;

/// The harness' max_gen_toks.
constexpr int64_t kDefaultTokens = 256;

}  // namespace

RequestWork::RequestWork(std::vector<Request> const& requests, ModelConfig const& config,
                         Tokenizer const* tokenizer)
    : tokenizer_(tokenizer) {
  auto const default_tokens = std::min(kDefaultTokens, config.max_positions / 2);
  for (auto const& each : requests) {
    RequestReader const request(each, config, tokenizer);
    Item item{request.id(), request.type() == "loglikelihood" ? Kind::scored : Kind::rolling};
    if (request.type() == "generate_until") {
      item.kind = Kind::continued;
      item.first = continued_.size();
      continued_.push_back({request.generated(default_tokens), request.stop_strings()});
    } else {
      item.first = scored_.size();
      auto rows = item.kind == Kind::rolling ? request.windows() : std::vector{request.continuation()};
      item.count = rows.size();
      std::move(rows.begin(), rows.end(), std::back_inserter(scored_));
    }
    items_.push_back(std::move(item));
  }
}

RequestResults RequestWork::compute(CausalLM& model, int64_t batch_tokens, BatchShare const& share) const {
  return {score_rows(model, scored_, batch_tokens, share),
          continue_rows(model, tokenizer_, continued_, batch_tokens, share)};
}

std::vector<std::string> RequestWork::answers(RequestResults const& results) const {
  std::vector<RowScore> scores(scored_.size());
  for (auto const& score : results.scores) scores[static_cast<size_t>(score.row)] = score;
  auto const texts = tokens_by_row(results.tokens, continued_.size());
  std::vector<std::string> lines;
  for (auto const& item : items_) {
    auto const answer =
        item.kind == Kind::continued ? text_answer(item, texts[item.first]) : score_answer(item, scores);
    // The id comes back as it was written, which a parsed number would not.
    auto const fields = answer.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
    lines.push_back("{\"id\":" + item.id + "," + fields.substr(1));
  }
  return lines;
}

ordered_json RequestWork::score_answer(Item const& item, std::vector<RowScore> const& scores) const {
  double loglikelihood = 0;
  bool is_greedy = true;
  for (size_t row = item.first; row < item.first + item.count; ++row) {
    loglikelihood += scores[row].loglikelihood;
    is_greedy = is_greedy && scores[row].is_greedy;
  }
  ordered_json answer = {{"loglikelihood", loglikelihood}};
  if (item.kind == Kind::scored) {
    answer["is_greedy"] = is_greedy;
    answer["num_tokens"] = scored_[item.first].targets;
  }
  return answer;
}

ordered_json RequestWork::text_answer(Item const& item, std::vector<int32_t> const& ids) const {
  ordered_json answer;
  if (tokenizer_ != nullptr)
    answer["text"] = text_before_stop(*tokenizer_, ids, continued_[item.first].stops);
  answer["ids"] = ids;
  return answer;
}

std::vector<std::string> answer_requests(CausalLM& model, Tokenizer const* tokenizer,
                                         std::vector<Request> const& requests, int64_t batch_tokens) {
  RequestWork const work(requests, model.config(), tokenizer);
  return work.answers(work.compute(model, batch_tokens));
}

}  // namespace fsllm
