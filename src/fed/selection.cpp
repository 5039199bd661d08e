// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/selection.hpp"

#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace fsllm {

bool Selection::observe(double given) {
  // A loss that is not finite is worse than any other, and JSON has no word for it.
  double const loss = std::isfinite(given) ? given : kWorst;
  bool const best = loss < best_;
  if (best) best_ = loss;
  auto const patience = config_.patience;
  if (config_.improve_on_mean) {
    auto const seen = static_cast<int64_t>(history_.size());
    if (patience > 0 && seen >= patience) {
      double const mean =
          std::accumulate(history_.end() - patience, history_.end(), 0.0) / static_cast<double>(patience);
      stop_ = loss > mean - config_.delta;
    }
  } else if (history_.empty() || (std::isfinite(given) && loss <= reference_ - config_.delta)) {
    reference_ = loss;
    since_ = 0;
  } else {
    ++since_;
    stop_ = patience > 0 && since_ >= patience;
  }
  history_.push_back(loss);
  return best;
}

std::string Selection::state() const {
  return nlohmann::json{
      {"history", history_}, {"best", best_}, {"reference", reference_}, {"since", since_}, {"stop", stop_}}
      .dump();
}

void Selection::load_state(std::string const& json) {
  auto const state = nlohmann::json::parse(json);
  auto const loss = [](nlohmann::json const& value) {
    return value.is_null() ? kWorst : value.get<double>();
  };
  history_.clear();
  for (auto const& value : state.at("history")) history_.push_back(loss(value));
  best_ = loss(state.at("best"));
  reference_ = loss(state.at("reference"));
  since_ = state.at("since").get<int64_t>();
  stop_ = state.at("stop").get<bool>();
}

}  // namespace fsllm
