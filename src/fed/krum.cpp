// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "fsllm/fed/aggregate.hpp"

namespace fsllm {
namespace {

/// Squared distances between the messages of all pairs of clients, over all tensors. Collective.
std::vector<double> squared_distances(GatheredMessages const& all, Communicator const& comm) {
  auto const count = all.tasks.size();
  std::map<int64_t, std::vector<double>> of_tensors;
  auto number = all.numbers.begin();
  for (auto const& [name, first] : all.messages.front()) {
    auto& distances = of_tensors[*number++];
    distances.resize(count * count);
    for (size_t i = 0; i < count; ++i)
      for (size_t j = i + 1; j < count; ++j) {
        auto const difference =
            all.messages[i].at(name).to(at::kDouble).sub(all.messages[j].at(name).to(at::kDouble));
        distances[i * count + j] = distances[j * count + i] = difference.square().sum().item<double>();
      }
  }
  return sum_over_tensors(of_tensors, comm);
}

/// The `chosen` clients of the lowest scores: the sum of the distances to the nearest `neighbours` others.
std::vector<size_t> lowest_scores(std::vector<double> const& distances, size_t count, size_t neighbours,
                                  size_t chosen) {
  std::vector<double> scores(count);
  for (size_t i = 0; i < count; ++i) {
    std::vector<double> others;
    for (size_t j = 0; j < count; ++j)
      if (j != i) others.push_back(distances[i * count + j]);
    std::sort(others.begin(), others.end());
    scores[i] =
        std::accumulate(others.begin(), others.begin() + static_cast<std::ptrdiff_t>(neighbours), 0.0);
  }
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  order.resize(std::min(chosen, count));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

/// Blanchard et al. 2017, section 4: Krum, and with more than one chosen client Multi-Krum.
void krum(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  auto const faulty = static_cast<size_t>(config.get<int64_t>(
      "aggregator.byzantine_node_num", 0, "Clients of a round that may send anything.", at_least(0)));
  auto const chosen = static_cast<size_t>(
      config.get<int64_t>("aggregator.BFT_args.krum_agg_num", 1, "Updates that krum averages.", at_least(1)));
  if (rule != "krum") return;
  algorithm.kind = Kind::gather;
  algorithm.combine = [faulty, chosen](GatheredMessages const& all, Communicator const& comm) {
    auto const count = all.tasks.size();
    FSLLM_CHECK(2 * faulty + 2 < count,
                "aggregator.byzantine_node_num = {} (krum needs more than {} clients a round, and {} train). "
                "Lower it, or let "
                "more clients train (federate.sample_client_num).",
                faulty, 2 * faulty + 2, count);
    auto const best = lowest_scores(squared_distances(all, comm), count, count - faulty - 2, chosen);
    double weight = 0;
    for (size_t const i : best) weight += all.tasks[i].weight;
    TensorMap mean;
    for (auto const& [name, first] : all.messages.front()) {
      auto sum = at::zeros_like(first, first.options().dtype(at::kDouble));
      for (size_t const i : best) sum.add_(all.messages[i].at(name), all.tasks[i].weight);
      mean.emplace(name, sum.div_(weight).to(first.scalar_type()));
    }
    return mean;
  };
}

}  // namespace fsllm
