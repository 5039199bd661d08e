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
    for (int64_t const row : plan.server.*part) owners.push_back(input.rows.owner_of(row));
  std::sort(owners.begin(), owners.end(), before);
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  return owners;
}

}  // namespace

void hand_out_owned(SplitPlan& plan, std::vector<int64_t> const& owner) {
  let_every_client_train(plan, owner);
  hand_out(plan, owner);
}

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

void split_text_length(SplitInput const& input, SplitPlan& plan) {
  Rows rows;
  for (auto const part : kParts)
    rows.insert(rows.end(), (plan.server.*part).begin(), (plan.server.*part).end());
  std::sort(rows.begin(), rows.end(), [&](int64_t a, int64_t b) {
    auto const x = input.rows.length[static_cast<size_t>(a)], y = input.rows.length[static_cast<size_t>(b)];
    return x != y ? x < y : a < b;
  });
  std::vector<int64_t> owner(input.rows.record.size(), -1);
  for (size_t i = 0; i < rows.size(); ++i)
    owner[static_cast<size_t>(rows[i])] = static_cast<int64_t>(i * plan.clients.size() / rows.size());
  hand_out_owned(plan, owner);
}

void split_meta(SplitInput const& input, SplitPlan& plan) {
  std::map<std::string, int64_t> client_of;
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part) client_of[input.rows.category_of(row)];
  auto const groups = static_cast<int64_t>(client_of.size());
  FSLLM_CHECK(input.client_num <= groups,
              "federate.client_num = {} (splitter meta gives each client whole categories, and "
              "{} has {}). Lower it to at most {}, or use another data.splitter.",
              input.client_num, input.config.type(), groups, groups);
  std::vector<int64_t> order(client_of.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i) % input.client_num;
  Philox(input.seed, Purpose::client_split).shuffle(std::span(order));
  size_t next = 0;
  for (auto& [category, client] : client_of) client = order[next++];
  std::vector<int64_t> owner(input.rows.record.size(), -1);
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part)
      owner[static_cast<size_t>(row)] = client_of.at(input.rows.category_of(row));
  let_every_client_train(plan, owner);
  hand_out(plan, owner);
}

int64_t count_owners(SplitInput const& input, SplitPlan const& plan) {
  auto const owners = static_cast<int64_t>(distinct_owners(input, plan).size());
  auto const each =
      input.config.splitter == "by_file" ? "file" : fmt::format("value of '{}'", input.config.natural_field);
  FSLLM_CHECK(
      input.client_num == 0 || input.client_num == owners,
      "federate.client_num = {} (splitter {} makes every {} a client, and {} has {}). Set it to {} or "
      "to 0.",
      input.client_num, input.config.splitter, each, input.config.type(), owners, owners);
  return owners;
}

void split_by_owner(SplitInput const& input, SplitPlan& plan) {
  auto const owners = distinct_owners(input, plan);
  std::vector<int64_t> owner(input.rows.record.size(), -1);
  for (auto const part : kParts)
    for (int64_t const row : plan.server.*part)
      owner[static_cast<size_t>(row)] =
          std::lower_bound(owners.begin(), owners.end(), input.rows.owner_of(row), before) - owners.begin();
  hand_out_owned(plan, owner);
}

}  // namespace fsllm
