// SPDX-License-Identifier: Apache-2.0
// random:, bayes: and halving: of a SPEC.
#include <algorithm>
#include <cmath>

#include "fsllm/core/error.hpp"
#include "spec_yaml.hpp"

namespace fsllm::detail {
namespace {

SearchKey read_dimension(std::string const& key, SpecNode const& node) {
  check_key(node, key);
  auto const entries = node.entries({"uniform", "log_uniform", "choice"});
  FSLLM_CHECK(entries.size() == 1, "{} (one of uniform, log_uniform and choice). Keep one of them.",
              node.where());
  auto const& [name, list] = entries.front();
  auto const items = list.items();
  SearchKey row{key};
  if (name == "choice") {
    row.kind = SearchKey::Kind::choice;
    for (auto const& item : items) row.choices.push_back(item.value());
    return row;
  }
  FSLLM_CHECK(items.size() == 2, "{} has {} entries (the lowest and the highest value). Write [0.1, 1].",
              list.where(), items.size());
  row.kind = name == "uniform" ? SearchKey::Kind::uniform : SearchKey::Kind::log_uniform;
  row.low = items[0].number();
  row.high = items[1].number();
  row.whole = items[0].value().json.is_number_integer() && items[1].value().json.is_number_integer();
  FSLLM_CHECK(row.low < row.high, "{} = [{}, {}] (the lower bound comes first). Exchange them.", list.where(),
              items[0].text(), items[1].text());
  FSLLM_CHECK(row.kind == SearchKey::Kind::uniform || row.low > 0,
              "{} begins at {} (a logarithm needs more than 0). Raise it, or use uniform.", list.where(),
              items[0].text());
  return row;
}

/// How many settings Hyperband draws: the sum over its brackets s of ⌈(s_max + 1) η^s / (s + 1)⌉.
int64_t hyperband_count(Halving const& halving, int64_t most) {
  int64_t count = 0;
  for (int64_t b = 0; b < halving.brackets; ++b) {
    auto const s = most - b;
    count +=
        static_cast<int64_t>(std::ceil(static_cast<double>(most + 1) / static_cast<double>(s + 1) *
                                       std::pow(static_cast<double>(halving.eta), static_cast<double>(s))));
  }
  return count;
}

}  // namespace

void read_search(SpecNode const& root, SweepSpec& spec) {
  auto const grid = root.at("grid"), random = root.at("random"), bayes = root.at("bayes");
  FSLLM_CHECK((grid.given() ? 1 : 0) + (random.given() ? 1 : 0) + (bayes.given() ? 1 : 0) <= 1,
              "{} (grid, random and bayes are three ways to choose settings). Keep one of them.",
              (random.given() ? random : bayes).where());
  if (!random.given() && !bayes.given()) return;
  auto const& node = random.given() ? random : bayes;
  auto const known = random.given() ? std::vector<std::string>{"count", "keys", "seed"}
                                    : std::vector<std::string>{"count", "keys", "seed", "initial", "metric"};
  for (auto const& entry : node.entries(known)) static_cast<void>(entry);
  FSLLM_CHECK(node.at("keys").given(),
              "{} has no keys. Write keys: {{train.optimizer.lr: {{log_uniform: "
              "[0.001, 1]}}}}.",
              node.where());
  for (auto const& [key, dimension] : node.at("keys").entries())
    spec.space.push_back(read_dimension(key, dimension));
  if (node.at("seed").given()) spec.search_seed = static_cast<uint64_t>(node.at("seed").whole(0));
  bool const hyperband = root.at("halving").given() && root.at("halving").at("brackets").given();
  if (node.at("count").given() || !hyperband) spec.count = node.at("count").whole(1);
  if (!bayes.given()) return;
  FSLLM_CHECK(
      !root.at("halving").given(),
      "{} with bayes (its settings are judged at the full number of rounds). Use halving with random.",
      root.at("halving").where());
  Bayes search{std::min<int64_t>(spec.count, 4), spec.metrics.empty() ? SweepMetric{} : spec.metrics.front()};
  if (bayes.at("initial").given()) search.initial = bayes.at("initial").whole(2);
  search.metric =
      bayes.at("metric").given() ? read_metric(bayes.at("metric")) : SweepMetric{"val.loss_per_token"};
  spec.bayes = search;
}

void read_halving(SpecNode const& node, SweepSpec& spec) {
  for (auto const& entry : node.entries({"budget_key", "min", "max", "eta", "metric", "brackets"}))
    static_cast<void>(entry);
  constexpr char const* kBudget = "federate.total_round_num";
  if (auto const key = node.at("budget_key"); key.given())
    FSLLM_CHECK(
        key.text() == kBudget,
        "{} = {} (a run goes on from its checkpoint with more rounds, and with nothing else). Write {}.",
        key.where(), key.text(), kBudget);
  Halving halving;
  if (node.at("min").given()) halving.min = node.at("min").whole(1);
  halving.max = node.at("max").whole(halving.min + 1);
  if (node.at("eta").given()) halving.eta = node.at("eta").whole(2);
  halving.metric = node.at("metric").given() ? read_metric(node.at("metric")) : spec.metrics.front();
  for (auto const& row : spec.grid)
    FSLLM_CHECK(row.key != kBudget, "{} with {} in the grid (halving sets it). Remove it there.",
                node.where(), kBudget);
  int64_t most = 0;
  for (int64_t r = halving.min; r * halving.eta <= halving.max; r *= halving.eta) ++most;
  if (auto const brackets = node.at("brackets"); brackets.given()) {
    FSLLM_CHECK(!spec.space.empty() && spec.count == 0,
                "{} (Hyperband draws as many settings as its brackets need). Use random without count.",
                brackets.where());
    halving.brackets = brackets.text() == "all" ? most + 1 : brackets.whole(1);
    FSLLM_CHECK(halving.brackets <= most + 1, "{} = {} (from {} to {} rounds there are {}). Write all.",
                brackets.where(), halving.brackets, halving.min, halving.max, most + 1);
    spec.count = hyperband_count(halving, most);
  }
  spec.halving = halving;
}

}  // namespace fsllm::detail
