// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/plan.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/core/rng.hpp"

namespace fsllm {

std::vector<int64_t> unseen_clients(FedConfig const& config, std::vector<int64_t> const& clients) {
  if (config.unseen_clients_rate <= 0) return {};
  auto const all = static_cast<double>(clients.size());
  auto const count = std::max<size_t>(1, static_cast<size_t>(config.unseen_clients_rate * all));
  FSLLM_CHECK(
      count < clients.size(),
      "federate.unseen_clients_rate = {} (of {} clients none would train). Lower it, or make more shards.",
      config.unseen_clients_rate, clients.size());
  auto chosen = clients;
  Philox(config.seed, Purpose::unseen_clients).shuffle(std::span<int64_t>(chosen));
  chosen.resize(count);
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<int64_t> sample_clients(FedConfig const& config, std::vector<int64_t> const& clients,
                                    int64_t round) {
  auto const all = static_cast<int64_t>(clients.size());
  int64_t wanted = config.sample_client_num > 0 ? config.sample_client_num : all;
  if (config.sample_client_rate > 0)
    wanted = std::max<int64_t>(1, static_cast<int64_t>(config.sample_client_rate * static_cast<double>(all)));
  FSLLM_CHECK(wanted <= all,
              "federate.sample_client_num = {} (only {} clients take part). Lower it, or make more shards "
              "with federate.client_num.",
              wanted, all);
  auto chosen = clients;
  if (wanted == all) return chosen;
  Philox rng(config.seed, Purpose::sample_clients, 0, static_cast<uint64_t>(round));
  rng.shuffle(std::span<int64_t>(chosen));
  chosen.resize(static_cast<size_t>(wanted));
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<int64_t> training_clients(FedConfig const& config, std::vector<int64_t> const& clients) {
  auto const taking_part = config.only_client > 0 ? std::vector{config.only_client} : clients;
  auto const unseen = unseen_clients(config, taking_part);
  std::vector<int64_t> trained;
  std::set_difference(taking_part.begin(), taking_part.end(), unseen.begin(), unseen.end(),
                      std::back_inserter(trained));
  if (config.algorithm.samples) sample_clients(config, trained, 0);
  return trained;
}

std::vector<std::vector<int64_t>> place_clients(std::vector<int64_t> const& clients,
                                                std::vector<double> const& costs, int ranks, int first_rank,
                                                std::vector<std::vector<int>> const& allowed) {
  std::vector<size_t> order(clients.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<int> every(static_cast<size_t>(ranks));
  std::iota(every.begin(), every.end(), 0);
  std::vector<double> load(static_cast<size_t>(ranks), 0);
  std::vector<std::vector<int64_t>> by_rank(static_cast<size_t>(ranks));
  for (size_t const i : order) {
    int chosen = -1;
    for (int const rank : allowed.empty() || allowed[i].empty() ? every : allowed[i])
      if (rank >= first_rank &&
          (chosen < 0 || load[static_cast<size_t>(rank)] < load[static_cast<size_t>(chosen)]))
        chosen = rank;
    FSLLM_CHECK(
        chosen >= 0,
        "client {} lies on rank 0 alone (hpc.server_trains: False: rank 0 trains nobody). Set it to True, or "
        "move the shard.",
        clients[i]);
    by_rank[static_cast<size_t>(chosen)].push_back(clients[i]);
    load[static_cast<size_t>(chosen)] += costs[i];
  }
  return by_rank;
}

}  // namespace fsllm
