// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <span>

#include "fsllm/core/rng.hpp"

namespace fsllm {
namespace {

using Clients = std::vector<TrainingClient>;

Philox stream_of(Draw const& draw) {
  return {draw.seed, Purpose::sample_clients, 0, static_cast<uint64_t>(draw.round),
          static_cast<uint64_t>(draw.number)};
}

Clients uniform(Draw const& draw, Clients const&, SamplerState&) {
  auto chosen = draw.from;
  stream_of(draw).shuffle(std::span<TrainingClient>(chosen));
  chosen.resize(draw.wanted);
  return chosen;
}

/// One after another without replacement, each with a probability in proportion to `share`, in the order in
/// which they were drawn; those without a share come last.
Clients drawn_by_share(Draw const& draw, size_t count,
                       std::function<double(TrainingClient const&)> const& share) {
  auto rest = draw.from;
  auto random = stream_of(draw);
  Clients chosen;
  while (chosen.size() < count) {
    double left = 0;
    for (auto const& client : rest) left += share(client);
    double place = random.uniform() * left;
    size_t at = 0;
    while (at + 1 < rest.size() && place >= share(rest[at])) place -= share(rest[at++]);
    chosen.push_back(rest[at]);
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return chosen;
}

/// FS-LLM's: in proportion to the root of the response time, so that slow clients, whose updates come seldom,
/// are asked more often.
Clients responsiveness(Draw const& draw, Clients const&, SamplerState&) {
  return drawn_by_share(draw, draw.wanted,
                        [](TrainingClient const& client) { return std::sqrt(client.seconds); });
}

constexpr size_t kGroups = 10;

/// All clients in the order in which `group` passes by them: sorted by response time they are cut into ten
/// groups of equal size (what is left goes to the last); groups and the clients of each come in random order.
std::vector<int64_t> order_of_pass(uint64_t seed, int64_t pass, Clients sorted) {
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](auto const& a, auto const& b) { return a.seconds < b.seconds; });
  Philox random(seed, Purpose::sample_clients, 0, static_cast<uint64_t>(pass));
  std::vector<size_t> groups(kGroups);
  std::iota(groups.begin(), groups.end(), size_t{0});
  random.shuffle(std::span<size_t>(groups));
  size_t const size = sorted.size() / kGroups;
  std::vector<int64_t> order;
  for (size_t const group : groups) {
    size_t const count = group + 1 < kGroups ? size : sorted.size() - group * size;
    auto const members = std::span<TrainingClient>(sorted).subspan(group * size, count);
    random.shuffle(members);
    for (auto const& client : members) order.push_back(client.id);
  }
  return order;
}

/// FS-LLM's: the next clients of passes over all of them, by groups of like speed. Who is at work, or chosen
/// already, is passed by.
Clients group(Draw const& draw, Clients const& all, SamplerState& state) {
  auto waiting = draw.from;
  Clients chosen;
  auto const count = std::ssize(all);
  std::vector<int64_t> order;
  for (; chosen.size() < draw.wanted; ++state.position) {
    if (order.empty() || state.position % count == 0)
      order = order_of_pass(draw.seed, state.position / count, all);
    int64_t const id = order[static_cast<size_t>(state.position % count)];
    auto const next = std::ranges::find(waiting, id, &TrainingClient::id);
    if (next == waiting.end()) continue;
    chosen.push_back(*next);
    waiting.erase(next);
  }
  return chosen;
}

/// Cho, Wang & Joshi 2020, "Client selection in federated learning", π_pow-d: candidates are drawn by their
/// share of the rows; those with the highest loss train. Who was never evaluated goes first, as in
/// π_rpow-d.
Clients power_of_choice(Draw const& draw, Clients const&, SamplerState& state) {
  auto const loss = [&](TrainingClient const& client) {
    auto const known = state.losses.find(client.id);
    return known == state.losses.end() ? std::numeric_limits<double>::infinity() : known->second;
  };
  auto chosen = drawn_by_share(draw, std::min(draw.candidates, draw.from.size()),
                               [](TrainingClient const& client) { return client.rows; });
  std::stable_sort(chosen.begin(), chosen.end(),
                   [&](auto const& a, auto const& b) { return loss(a) > loss(b); });
  chosen.resize(draw.wanted);
  return chosen;
}

}  // namespace

std::vector<Row<Sampler>> const& sampler_table() {
  static std::vector<Row<Sampler>> const table{
      {"uniform", {uniform}, "each equally"},
      {"group", {group}, "passes over all, ten groups of like response time one after another"},
      {"responsiveness", {responsiveness}, "in proportion to the root of the response time"},
      {"power_of_choice",
       {power_of_choice, true},
       "of candidates drawn by their rows those with the highest loss when they were last evaluated (Cho et "
       "al. 2020)"},
  };
  return table;
}

bool SamplerConfig::uses_losses() const {
  return find_row(sampler_table(), name, "federate.sampler").build.uses_losses;
}

SamplerConfig load_sampler_config(Config& config) {
  SamplerConfig c;
  c.name = config.get("federate.sampler", "uniform",
                      "Who trains where federate.sample_client_num or _rate asks for fewer than all. " +
                          named_with_meaning(sampler_table()) + ".",
                      one_of(names_of(sampler_table())));
  c.candidates =
      config.get<int64_t>("federate.sampler_candidates", 0,
                          "Candidates of power_of_choice (d); 0: twice as many as train.", at_least(0));
  return c;
}

std::vector<TrainingClient> draw_clients(SamplerConfig const& config, Draw draw,
                                         std::vector<TrainingClient> const& all, SamplerState& state) {
  if (draw.wanted >= draw.from.size()) return draw.from;
  if (draw.wanted == 0) return {};
  draw.candidates = config.candidates > 0 ? static_cast<size_t>(config.candidates) : 2 * draw.wanted;
  auto chosen = find_row(sampler_table(), config.name, "federate.sampler").build.draw(draw, all, state);
  std::ranges::sort(chosen, {}, &TrainingClient::id);
  return chosen;
}

}  // namespace fsllm
