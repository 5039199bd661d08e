// SPDX-License-Identifier: Apache-2.0
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "robust.hpp"

namespace fsllm {
namespace {

/// The `chosen` clients of the lowest scores.
std::vector<size_t> lowest(std::vector<double> const& scores, size_t chosen) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  order.resize(std::min(chosen, order.size()));
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace

/// Blanchard et al. 2017, section 4: Krum, and with more than one chosen client Multi-Krum.
void krum(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  auto const faulty = byzantine_clients(config);
  auto const chosen = static_cast<size_t>(
      config.get<int64_t>("aggregator.BFT_args.krum_agg_num", 1, "Updates that krum averages.", at_least(1)));
  if (rule != "krum") return;
  algorithm.whole_updates = true;
  algorithm.kind = Kind::gather;
  algorithm.combine = [faulty, chosen](GatheredMessages const& all, Communicator const& comm) {
    auto const count = all.tasks.size();
    FSLLM_CHECK(2 * faulty + 2 < count,
                "aggregator.byzantine_node_num = {} (krum needs more than {} clients a round, and {} train). "
                "Lower it, or let "
                "more clients train (federate.sample_client_num).",
                faulty, 2 * faulty + 2, count);
    std::vector<size_t> clients(count);
    std::iota(clients.begin(), clients.end(), size_t{0});
    auto const best = lowest(krum_scores(squared_distances(all, comm), clients, count - faulty - 2), chosen);
    double weight = 0;
    for (size_t const i : best) weight += all.tasks[i].weight;
    TensorMap mean;
    for (auto const& [name, first] : all.messages.front()) {
      auto sum = at::zeros_like(first, first.options().dtype(at::kDouble));
      for (size_t const i : best) sum.add_(all.messages[i].at(name), all.tasks[i].weight);
      mean.emplace(name, sum.div_(weight).to(first.scalar_type()));
    }
    return Message{std::move(mean), {}, {}};
  };
}

}  // namespace fsllm
