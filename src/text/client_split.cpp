// SPDX-License-Identifier: Apache-2.0
#include "client_split.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <span>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

using Rows = std::vector<int64_t>;
using Parts = SplitPlan::Parts;
constexpr Rows Parts::*kParts[] = {&Parts::train, &Parts::val, &Parts::test};

constexpr int64_t kMostDraws = 10000;

Sample const& sample_of(SplitInput const& input, int64_t row) {
  return input.samples[static_cast<size_t>(row)];
}

/// Client of every row that has one (-1 elsewhere) → plan.clients.
void hand_out(SplitPlan& plan, std::vector<int64_t> const& owner) {
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part)
      (plan.clients[static_cast<size_t>(owner[static_cast<size_t>(row)])].*part).push_back(row);
}

/// A client whose rows all fell into val and test trains on one of them; the client with most training rows
/// gives one of its own for it, so that the numbers of train, val and test stay.
void let_every_client_train(SplitPlan& plan, std::vector<int64_t> const& owner) {
  auto& train = plan.server.train;
  std::vector<int64_t> count(plan.clients.size());
  auto const count_of = [&](int64_t row) -> int64_t& {
    return count[static_cast<size_t>(owner[static_cast<size_t>(row)])];
  };
  for (int64_t const row : train) ++count_of(row);
  for (auto const part : {&Parts::val, &Parts::test}) {
    for (auto& held_out : plan.server.*part) {
      if (count_of(held_out) > 0) continue;
      auto const giver = std::max_element(train.begin(), train.end(),
                                          [&](int64_t a, int64_t b) { return count_of(a) < count_of(b); });
      if (giver == train.end() || count_of(*giver) < 2) return;
      --count_of(*giver);
      ++count_of(held_out);
      std::swap(held_out, *giver);
    }
  }
}

/// Shares of one category for every client: Dirichlet(alpha).
std::vector<double> dirichlet(Philox& random, double alpha, size_t clients) {
  std::vector<double> shares(clients);
  double sum = 0;
  for (auto& share : shares) sum += share = random.gamma(alpha);
  if (sum > 0) {
    for (auto& share : shares) share /= sum;
  } else {  // alpha so small that every draw underflowed: one client takes all
    shares[random.below(clients)] = 1;
  }
  return shares;
}

/// Where the shares cut n rows: client k gets [cuts[k], cuts[k + 1]).
std::vector<int64_t> cuts_of(std::vector<double> const& shares, size_t n) {
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

/// Rows of each category, split by split, and each category's shares of the clients.
struct Categories {
  std::map<std::string, Rows> rows[std::size(kParts)];
  std::map<std::string, std::vector<double>> shares;
};

Categories categories_of(SplitInput const& input, SplitPlan const& plan) {
  Categories categories;
  for (size_t p = 0; p < std::size(kParts); ++p)
    for (int64_t const row : plan.server.*kParts[p]) {
      categories.rows[p][sample_of(input, row).category].push_back(row);
      categories.shares[sample_of(input, row).category];
    }
  return categories;
}

/// One draw of all shares; the training rows that each client would get.
std::vector<int64_t> draw_shares(SplitInput const& input, int64_t draw, Categories& categories) {
  std::vector<int64_t> sizes(static_cast<size_t>(input.client_num));
  Philox random(input.seed, Purpose::client_split, 0, static_cast<uint64_t>(draw));
  for (auto& [category, share] : categories.shares) {
    share = dirichlet(random, input.config.lda_alpha, sizes.size());
    auto const cuts = cuts_of(share, categories.rows[0][category].size());
    for (size_t k = 0; k < sizes.size(); ++k) sizes[k] += cuts[k + 1] - cuts[k];
  }
  return sizes;
}

/// Numbers first, by value; then other texts, alphabetically.
bool before(std::string const& a, std::string const& b) {
  auto const number = [](std::string const& text, int64_t& value) {
    auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    return error == std::errc() && end == text.data() + text.size();
  };
  int64_t x = 0, y = 0;
  bool const a_is = number(a, x), b_is = number(b, y);
  if (a_is && b_is && x != y) return x < y;
  return a_is != b_is ? a_is : a < b;
}

std::vector<std::string> distinct_owners(SplitInput const& input, SplitPlan const& plan) {
  std::vector<std::string> owners;
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part) owners.push_back(sample_of(input, row).owner);
  std::sort(owners.begin(), owners.end(), before);
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  return owners;
}

}  // namespace

void split_iid(SplitInput const& input, SplitPlan& plan) {
  auto const clients = plan.clients.size();
  for (size_t p = 0; p < std::size(kParts); ++p) {
    auto rows = plan.server.*kParts[p];
    Philox(input.seed, Purpose::client_split, 0, 0, p).shuffle(std::span(rows));
    auto begin = rows.begin();
    for (size_t k = 0; k < clients; ++k) {
      auto const size = static_cast<int64_t>(rows.size() / clients + (k < rows.size() % clients ? 1 : 0));
      (plan.clients[k].*kParts[p]).assign(begin, begin + size);
      begin += size;
    }
  }
}

void split_meta(SplitInput const& input, SplitPlan& plan) {
  std::map<std::string, int64_t> client_of;
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part) client_of[sample_of(input, row).category];
  auto const groups = static_cast<int64_t>(client_of.size());
  FSLLM_CHECK(input.client_num <= groups,
              "federate.client_num = {} (splitter meta gives each client whole categories, and "
              "{} has {}). Lower it to at most {}, or use another data.splitter.",
              input.client_num, input.config.type, groups, groups);
  std::vector<int64_t> order(client_of.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i) % input.client_num;
  Philox(input.seed, Purpose::client_split).shuffle(std::span(order));
  size_t next = 0;
  for (auto& [category, client] : client_of) client = order[next++];
  std::vector<int64_t> owner(input.samples.size(), -1);
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part)
      owner[static_cast<size_t>(row)] = client_of.at(sample_of(input, row).category);
  let_every_client_train(plan, owner);
  hand_out(plan, owner);
}

int64_t count_owners(SplitInput const& input, SplitPlan const& plan) {
  auto const owners = static_cast<int64_t>(distinct_owners(input, plan).size());
  FSLLM_CHECK(input.client_num == 0 || input.client_num == owners,
              "federate.client_num = {} (splitter natural makes every value of '{}' a client, and {} has "
              "{}). Set it to {} "
              "or to 0.",
              input.client_num, input.config.natural_field, input.config.type, owners, owners);
  return owners;
}

void split_natural(SplitInput const& input, SplitPlan& plan) {
  auto const owners = distinct_owners(input, plan);
  std::vector<int64_t> owner(input.samples.size(), -1);
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part)
      owner[static_cast<size_t>(row)] =
          std::lower_bound(owners.begin(), owners.end(), sample_of(input, row).owner, before) -
          owners.begin();
  let_every_client_train(plan, owner);
  hand_out(plan, owner);
}

void split_lda(SplitInput const& input, SplitPlan& plan) {
  auto categories = categories_of(input, plan);
  int64_t draw = 0;
  for (; draw < kMostDraws; ++draw) {
    auto const sizes = draw_shares(input, draw, categories);
    if (plan.server.train.empty() || std::ranges::min(sizes) >= input.config.lda_min_size) break;
  }
  FSLLM_CHECK(draw < kMostDraws,
              "federate.client_num = {} (splitter lda with alpha {} found no division of {} training rows in "
              "{} draws that "
              "gives each client {}). Lower it, or raise alpha in data.splitter_args.",
              input.client_num, input.config.lda_alpha, plan.server.train.size(), kMostDraws,
              input.config.lda_min_size);
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

}  // namespace fsllm
