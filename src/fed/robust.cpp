// SPDX-License-Identifier: Apache-2.0
#include "robust.hpp"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fsllm/fed/aggregate.hpp"

namespace fsllm {

size_t byzantine_clients(Config& config) {
  return static_cast<size_t>(config.get<int64_t>(
      "aggregator.byzantine_node_num", 0,
      "Clients of a round that may send anything, as krum and bulyan count on it.", at_least(0)));
}

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

std::vector<double> krum_scores(std::vector<double> const& distances, std::vector<size_t> const& clients,
                                size_t neighbours) {
  auto const count = static_cast<size_t>(std::llround(std::sqrt(static_cast<double>(distances.size()))));
  std::vector<double> scores;
  for (size_t const i : clients) {
    std::vector<double> others;
    for (size_t const j : clients)
      if (j != i) others.push_back(distances[i * count + j]);
    std::sort(others.begin(), others.end());
    auto const nearest = others.begin() + static_cast<std::ptrdiff_t>(std::min(neighbours, others.size()));
    scores.push_back(std::accumulate(others.begin(), nearest, 0.0));
  }
  return scores;
}

}  // namespace fsllm
