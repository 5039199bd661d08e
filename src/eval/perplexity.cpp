// SPDX-License-Identifier: Apache-2.0
#include "perplexity.hpp"

#include <cmath>
#include <numbers>

#include "fsllm/core/utf8.hpp"

namespace fsllm::detail {
namespace {

/// len(re.split(r"\s+", text)).
int64_t words_of(std::string const& text) {
  int64_t words = 1;
  bool blank = false;
  for (size_t at = 0; at < text.size();) {
    auto const [value, length] = code_point_at(text, at);
    bool const is_blank = is_white_space(value);
    words += is_blank && !blank ? 1 : 0;
    blank = is_blank;
    at += length;
  }
  return words;
}

struct Perplexity final : EvalTask {
  explicit Perplexity(std::string const& name_, std::vector<std::string> documents) {
    name = name_;
    about = "log-likelihood of whole documents in windows of the model's length, each token scored once";
    for (auto const* kind : {"loglikelihood", "words", "bytes", "tokens"})
      metrics.push_back({.name = kind, .is_share = false});
    for (auto& document : documents) {
      TaskItem item;
      item.document = std::move(document);
      items.push_back(std::move(item));
    }
  }
  ItemScore score(size_t item, ItemAnswer const& answer) const override {
    auto const& text = items[item].document;
    auto const& whole = answer.choices.front();
    return {"",
            {whole.loglikelihood, static_cast<double>(words_of(text)), static_cast<double>(text.size()),
             static_cast<double>(whole.tokens)}};
  }
  std::vector<ReportRow> report(std::vector<ItemScore> const& scores) const override {
    double sums[4] = {};
    for (auto const& score : scores)
      for (size_t m = 0; m < 4; ++m) sums[m] += score.values[m];
    ReportRow row{name, name, 0, static_cast<int64_t>(scores.size()), {}};
    auto const add = [&](char const* metric, double value) {
      row.metrics.push_back({{.name = metric, .is_share = false, .higher_is_better = false}, value});
    };
    add("word_perplexity", std::exp(-sums[0] / sums[1]));
    add("byte_perplexity", std::exp(-sums[0] / sums[2]));
    add("bits_per_byte", -sums[0] / sums[2] / std::numbers::ln2);
    add("token_perplexity", std::exp(-sums[0] / sums[3]));
    return {row};
  }
};

}  // namespace

void make_perplexity(Metric& metric) {
  auto const value = std::exp(-metric.value);
  if (metric.error) metric.error = value * *metric.error;
  auto const low = metric.high, high = metric.low;
  if (low) metric.low = std::exp(-*low);
  if (high) metric.high = std::exp(-*high);
  metric.value = value;
}

std::unique_ptr<EvalTask> perplexity_task(std::string const& name, std::vector<std::string> documents) {
  return std::make_unique<Perplexity>(name, std::move(documents));
}

}  // namespace fsllm::detail
