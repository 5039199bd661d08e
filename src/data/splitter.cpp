// SPDX-License-Identifier: Apache-2.0
#include "fsllm/data/splitter.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <span>

#include "client_split.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"
#include "fsllm/data/dataset.hpp"

namespace fsllm {
namespace {

/// The subsample's rows, ascending: a share of all rows, or of each category.
std::vector<int64_t> chosen_rows(RowTable const& rows, DataConfig const& config, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(rows.rows()));
  std::iota(order.begin(), order.end(), 0);
  if (config.subsample >= 1) return order;
  Philox(seed, Purpose::subsample).shuffle(std::span(order));
  bool const by_category = subsampled_by_category(config.type());
  std::map<int32_t, std::vector<int64_t>> groups;
  for (int64_t const row : order)
    groups[by_category ? rows.category[static_cast<size_t>(row)] : 0].push_back(row);
  std::vector<int64_t> chosen;
  for (auto const& [category, members] : groups) {
    auto const share = static_cast<int64_t>(config.subsample * static_cast<double>(members.size()));
    chosen.insert(chosen.end(), members.begin(), members.begin() + std::max<int64_t>(1, share));
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

/// numpy.random.seed(12345) and numpy.random.permutation: MT19937, Fisher–Yates from the end, and bounded
/// numbers by masking and rejection.
void shuffle_as_numpy(std::span<int64_t> values) {
  std::mt19937 generator(12345);
  for (size_t i = values.size(); i > 1; --i) {
    uint32_t mask = static_cast<uint32_t>(i - 1);
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    uint32_t drawn = generator() & mask;
    while (drawn > i - 1) drawn = generator() & mask;
    std::swap(values[i - 1], values[drawn]);
  }
}

/// Cuts the shuffled rows into train = int(s0·n), val = int(s1·n), test = the rest. Where s2 is 0, val takes
/// what rounding leaves, except under compat.fsllm.
SplitPlan::Parts cut_parts(std::vector<int64_t> const& order, DataConfig const& config) {
  auto const& shares = config.splits;
  auto const n = static_cast<double>(order.size());
  auto const train = static_cast<int64_t>(shares[0] * n);
  bool const no_test = shares[2] == 0 && shares[1] > 0 && !config.compat;
  auto const val = no_test ? static_cast<int64_t>(order.size()) - train : static_cast<int64_t>(shares[1] * n);
  auto const begin = order.begin();
  return {{begin, begin + train}, {begin + train, begin + train + val}, {begin + train + val, order.end()}};
}

void check_clients(SplitInput const& input, SplitPlan const& plan) {
  auto const rows = static_cast<int64_t>(plan.server.train.size());
  FSLLM_CHECK(input.client_num >= 1,
              "federate.client_num = {} (splitter {} must know how many clients there are). Set it "
              "to at least 1.",
              input.client_num, input.config.splitter);
  FSLLM_CHECK(rows > 0 || input.config.splits[0] == 0,
              "no training rows (data.splits takes {} of {} rows of {} for training, rounded down). Use more "
              "data, or a larger first share.",
              input.config.splits[0],
              plan.server.train.size() + plan.server.val.size() + plan.server.test.size(),
              input.config.type());
  FSLLM_CHECK(
      rows == 0 || input.client_num <= rows,
      "federate.client_num = {} (only {} training rows in {}). Lower it to at most {}, or use more data.",
      input.client_num, rows, input.config.type(), rows);
}

}  // namespace

std::vector<Row<Splitter>> const& splitters() {
  static std::vector<Row<Splitter>> const rows{
      {"iid", split_iid, "shuffled, equal shares"},
      {"lda", split_lda, "a Dirichlet share of every category (Hsu et al. 2019)"},
      {"meta", split_meta, "whole categories, one or more a client"},
      {"natural", split_by_owner, "one client for each value of a field"},
      {"by_file", split_by_owner, "one client for each file of a data.type with wildcards"},
      {"pathological", split_pathological, "a few categories a client (McMahan et al. 2017)"},
      {"inner_dirichlet", split_inner_dirichlet,
       "equal sizes, a Dirichlet mix of categories in each client (Acar et al. 2021)"},
      {"quantity", split_quantity, "shuffled, sizes skewed: linear, power or lognormal"},
      {"text_length", split_text_length, "by length: the first client has the shortest rows"},
  };
  return rows;
}

/// Rows of a part keep the order of the file: chance decides which rows, batching decides their order.
static void sort_parts(SplitPlan& plan) {
  plan.clients.push_back(std::move(plan.server));
  for (auto& parts : plan.clients)
    for (auto* rows : {&parts.train, &parts.val, &parts.test}) std::sort(rows->begin(), rows->end());
  plan.server = std::move(plan.clients.back());
  plan.clients.pop_back();
}

SplitPlan plan_split(RowTable const& rows, DataConfig const& config, int64_t client_num, uint64_t seed) {
  auto const split = find_row(splitters(), config.splitter, "data.splitter").build;
  auto order = chosen_rows(rows, config, seed);
  if (config.compat) {
    shuffle_as_numpy(order);
  } else {
    Philox(seed, Purpose::data_split).shuffle(std::span(order));
  }
  SplitPlan plan;
  plan.server = cut_parts(order, config);
  SplitInput input{rows, config, client_num, seed};
  if (config.splitter == "natural" || config.splitter == "by_file")
    input.client_num = count_owners(input, plan);
  check_clients(input, plan);
  plan.clients.resize(static_cast<size_t>(input.client_num));
  split(input, plan);
  if (!config.compat) sort_parts(plan);
  return plan;
}

}  // namespace fsllm
