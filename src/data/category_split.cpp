// SPDX-License-Identifier: Apache-2.0
// Splitters that give each client a share of every category.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <span>

#include "client_split.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;
using Shares = std::vector<double>;  ///< of the clients

constexpr int64_t kMostDraws = 10000;

/// Dirichlet(alpha) of dimension n.
Shares dirichlet(Philox& random, double alpha, size_t n) {
  Shares shares(n);
  double sum = 0;
  for (auto& share : shares) sum += share = random.gamma(alpha);
  if (sum > 0) {
    for (auto& share : shares) share /= sum;
  } else {  // alpha so small that every draw underflowed: one takes all
    shares[random.below(n)] = 1;
  }
  return shares;
}

/// Where the shares cut n rows: client k gets [cuts[k], cuts[k + 1]).
std::vector<int64_t> cuts_of(Shares const& shares, size_t n) {
  std::vector<int64_t> cuts{0};
  double sum = 0;
  for (double const share : shares) {
    sum += share;
    cuts.push_back(std::clamp<int64_t>(static_cast<int64_t>(sum * static_cast<double>(n)), cuts.back(),
                                       static_cast<int64_t>(n)));
  }
  cuts.back() = static_cast<int64_t>(n);
  return cuts;
}

/// Rows of each category, part by part, and each category's shares of the clients.
struct Categories {
  std::map<std::string, Rows> rows[std::size(kParts)];
  std::map<std::string, Shares> shares;
};

Categories rows_by_category(SplitInput const& input, SplitPlan const& plan) {
  Categories categories;
  for (size_t p = 0; p < std::size(kParts); ++p)
    for (int64_t const row : plan.server.*kParts[p]) {
      categories.rows[p][input.rows.category_of(row)].push_back(row);
      categories.shares[input.rows.category_of(row)];
    }
  return categories;
}

/// Cuts every category of every part by its shares, and shuffles what each client got.
void deal(SplitInput const& input, Categories const& categories, SplitPlan& plan) {
  for (size_t p = 0; p < std::size(kParts); ++p) {
    for (auto const& [category, rows] : categories.rows[p]) {
      auto const cuts = cuts_of(categories.shares.at(category), rows.size());
      for (size_t k = 0; k < plan.clients.size(); ++k) {
        auto& mine = plan.clients[k].*kParts[p];
        mine.insert(mine.end(), rows.begin() + cuts[k], rows.begin() + cuts[k + 1]);
      }
    }
    for (size_t k = 0; k < plan.clients.size(); ++k)
      Philox(input.seed, Purpose::client_split, k + 1, 0, p).shuffle(std::span(plan.clients[k].*kParts[p]));
  }
}

/// One draw of all shares; the training rows that each client would get.
std::vector<int64_t> draw_shares(SplitInput const& input, int64_t draw, Categories& categories) {
  std::vector<int64_t> sizes(static_cast<size_t>(input.client_num));
  Philox random(input.seed, Purpose::client_split, 0, static_cast<uint64_t>(draw));
  for (auto& [category, share] : categories.shares) {
    share = dirichlet(random, input.config.alpha, sizes.size());
    auto const cuts = cuts_of(share, categories.rows[0][category].size());
    for (size_t k = 0; k < sizes.size(); ++k) sizes[k] += cuts[k + 1] - cuts[k];
  }
  return sizes;
}

/// Shares that cut the training rows of each category into these counts; categories without training rows go
/// to all clients alike.
void set_shares(std::map<std::string, std::vector<int64_t>> const& counts, Categories& categories,
                size_t clients) {
  for (auto& [category, shares] : categories.shares) {
    auto const found = counts.find(category);
    auto const total =
        found == counts.end() ? 0 : std::accumulate(found->second.begin(), found->second.end(), int64_t{0});
    shares.assign(clients, 1.0 / static_cast<double>(clients));
    if (total == 0) continue;
    // Half a row more before each cut, so that rounding down gives the counts themselves.
    double before = 0;
    int64_t sum = 0;
    for (size_t k = 0; k < clients; ++k) {
      sum += found->second[k];
      double const end = std::min(1.0, (static_cast<double>(sum) + 0.5) / static_cast<double>(total));
      shares[k] = end - before;
      before = end;
    }
  }
}

/// Relative sizes of clients under splitter quantity.
Shares client_sizes(SplitInput const& input) {
  Philox random(input.seed, Purpose::client_split);
  Shares sizes;
  for (int64_t k = 1; k <= input.client_num; ++k) {
    auto const rank = static_cast<double>(k);
    if (input.config.distribution == "linear") sizes.push_back(rank);
    if (input.config.distribution == "power") sizes.push_back(std::pow(rank, -input.config.spread));
    if (input.config.distribution == "lognormal")
      sizes.push_back(std::exp(input.config.spread * random.normal()));
  }
  return sizes;
}

/// n rows by relative sizes, at least one for each client where there are enough.
Shares shares_of(Shares const& sizes, size_t n) {
  double const sum = std::accumulate(sizes.begin(), sizes.end(), 0.0);
  bool const enough = n >= sizes.size();
  double const spare = static_cast<double>(n) - (enough ? static_cast<double>(sizes.size()) : 0.0);
  Shares shares;
  for (double const size : sizes)
    shares.push_back(((enough ? 1 : 0) + spare * size / sum) / std::max(1.0, static_cast<double>(n)));
  return shares;
}

}  // namespace

void split_lda(SplitInput const& input, SplitPlan& plan) {
  auto categories = rows_by_category(input, plan);
  int64_t draw = 0;
  for (; draw < kMostDraws; ++draw) {
    auto const sizes = draw_shares(input, draw, categories);
    if (plan.server.train.empty() || std::ranges::min(sizes) >= input.config.lda_min_size) break;
  }
  FSLLM_CHECK(draw < kMostDraws,
              "federate.client_num = {} (splitter lda with alpha {} found no division of {} training rows in "
              "{} draws that gives each client {}). Lower it, or raise alpha in data.splitter_args.",
              input.client_num, input.config.alpha, plan.server.train.size(), kMostDraws,
              input.config.lda_min_size);
  deal(input, categories, plan);
}

void split_inner_dirichlet(SplitInput const& input, SplitPlan& plan) {
  auto categories = rows_by_category(input, plan);
  auto const clients = plan.clients.size(), kinds = categories.shares.size();
  std::vector<std::string> names;
  std::vector<int64_t> left;
  for (auto const& [name, _] : categories.shares) {
    names.push_back(name);
    left.push_back(static_cast<int64_t>(categories.rows[0][name].size()));
  }
  std::map<std::string, std::vector<int64_t>> counts;
  for (auto const& name : names) counts[name].resize(clients);
  Philox random(input.seed, Purpose::client_split);
  std::vector<Shares> prior;
  for (size_t k = 0; k < clients; ++k) prior.push_back(dirichlet(random, input.config.alpha, kinds));
  for (size_t i = 0; i < plan.server.train.size(); ++i) {
    size_t const k = i % clients;
    double weight = 0;
    for (size_t c = 0; c < kinds; ++c) weight += left[c] > 0 ? prior[k][c] : 0;
    size_t chosen = kinds;
    double at = random.uniform() * weight;
    for (size_t c = 0; c < kinds; ++c) {
      if (left[c] == 0 || (weight > 0 && prior[k][c] == 0)) continue;
      chosen = c;
      at -= prior[k][c];
      if (at < 0) break;
    }
    --left[chosen];
    ++counts[names[chosen]][k];
  }
  set_shares(counts, categories, clients);
  deal(input, categories, plan);
}

void split_pathological(SplitInput const& input, SplitPlan& plan) {
  auto categories = rows_by_category(input, plan);
  auto const clients = plan.clients.size(), pieces = clients * static_cast<size_t>(input.config.classes);
  auto const rows = plan.server.train.size();
  FSLLM_CHECK(rows == 0 || pieces <= rows,
              "data.splitter_args[0].classes = {} (splitter pathological cuts the {} training rows into {} "
              "pieces, {} for "
              "each of {} clients). Lower it, or federate.client_num.",
              input.config.classes, rows, pieces, input.config.classes, clients);
  std::vector<size_t> client_of(pieces);
  for (size_t i = 0; i < pieces; ++i) client_of[i] = i % clients;
  Philox(input.seed, Purpose::client_split).shuffle(std::span(client_of));
  std::map<std::string, std::vector<int64_t>> counts;
  size_t at = 0;
  for (auto const& [name, _] : categories.shares) {
    auto& mine = counts[name];
    mine.resize(clients);
    for (size_t i = 0; i < categories.rows[0][name].size(); ++i, ++at) ++mine[client_of[at * pieces / rows]];
  }
  set_shares(counts, categories, clients);
  deal(input, categories, plan);
}

void split_quantity(SplitInput const& input, SplitPlan& plan) {
  auto const sizes = client_sizes(input);
  for (size_t p = 0; p < std::size(kParts); ++p) {
    auto rows = plan.server.*kParts[p];
    Philox(input.seed, Purpose::client_split, 0, 1, p).shuffle(std::span(rows));
    auto const cuts = cuts_of(shares_of(sizes, rows.size()), rows.size());
    for (size_t k = 0; k < plan.clients.size(); ++k)
      (plan.clients[k].*kParts[p]).assign(rows.begin() + cuts[k], rows.begin() + cuts[k + 1]);
  }
}

}  // namespace fsllm
