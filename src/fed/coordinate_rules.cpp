// SPDX-License-Identifier: Apache-2.0
// Rules that look at each coordinate of the clients' updates by itself.
#include <ATen/core/Tensor.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fsllm/core/error.hpp"
#include "robust.hpp"

namespace fsllm {
namespace {

/// The messages of `clients` for one tensor, each coordinate sorted: [clients, …], float64.
at::Tensor sorted_values(GatheredMessages const& all, std::string const& name,
                         std::vector<size_t> const& clients) {
  std::vector<at::Tensor> values;
  for (size_t const i : clients) values.push_back(all.messages[i].at(name).to(at::kDouble));
  return std::get<0>(at::stack(values).sort(0));
}

std::vector<size_t> all_of(GatheredMessages const& all) {
  std::vector<size_t> clients(all.tasks.size());
  std::iota(clients.begin(), clients.end(), size_t{0});
  return clients;
}

/// What `rule` makes of the sorted values of each tensor.
template <class Rule>
Message by_coordinate(GatheredMessages const& all, std::vector<size_t> const& clients, Rule const& rule) {
  TensorMap combined;
  for (auto const& [name, first] : all.messages.front())
    combined.emplace(name, rule(sorted_values(all, name, clients)).to(first.scalar_type()));
  return {std::move(combined), {}, {}};
}

/// [K, …] sorted → the middle one, or the mean of the middle two.
at::Tensor median_of(at::Tensor const& sorted) {
  int64_t const count = sorted.size(0);
  return sorted.narrow(0, (count - 1) / 2, count % 2 == 0 ? 2 : 1).mean(0);
}

/// [K, …] sorted → the mean of the `count` values that lie closest to the median, which are neighbours.
at::Tensor mean_around_median(at::Tensor const& sorted, int64_t count) {
  auto const median = median_of(sorted);
  auto const farthest = [&](int64_t begin) {  // of `count` values from `begin`
    return at::maximum(sorted[begin].sub(median).abs(), sorted[begin + count - 1].sub(median).abs());
  };
  auto best = sorted.narrow(0, 0, count).mean(0), distance = farthest(0);
  for (int64_t begin = 1; begin + count <= sorted.size(0); ++begin) {
    auto const here = farthest(begin);
    auto const nearer = here.lt(distance);
    best = sorted.narrow(0, begin, count).mean(0).where(nearer, best);
    distance = here.where(nearer, distance);
  }
  return best;
}

/// K - 2f clients: Krum's best, again and again among those that are left.
std::vector<size_t> bulyan_selection(std::vector<double> const& distances, std::vector<size_t> left,
                                     size_t faulty) {
  std::vector<size_t> chosen;
  for (size_t const wanted = left.size() - 2 * faulty; chosen.size() < wanted;) {
    size_t const neighbours = left.size() > faulty + 2 ? left.size() - faulty - 2 : 1;
    auto const scores = krum_scores(distances, left, neighbours);
    auto const best = std::min_element(scores.begin(), scores.end()) - scores.begin();
    chosen.push_back(left[static_cast<size_t>(best)]);
    left.erase(left.begin() + best);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace

/// Yin et al. 2018, definition 1: the median of each coordinate, without weights.
void coordinate_median(Config&, std::string const& rule, FedAlgorithm& algorithm) {
  if (rule != "median") return;
  algorithm.kind = Kind::gather;
  algorithm.combine = [](GatheredMessages const& all, Communicator const&) {
    return by_coordinate(all, all_of(all), median_of);
  };
}

/// Yin et al. 2018, definition 2: each coordinate's mean without weights, but for its largest and smallest
/// values.
void trimmed_mean(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  double const ratio = config.get("aggregator.BFT_args.trimmedmean_excluded_ratio", 0.1,
                                  "Share of the clients whose largest values trimmedmean leaves out, and of "
                                  "those whose smallest.",
                                  within(0, 0.5));
  if (rule != "trimmedmean") return;
  algorithm.kind = Kind::gather;
  algorithm.combine = [ratio](GatheredMessages const& all, Communicator const&) {
    auto const count = static_cast<int64_t>(all.tasks.size());
    auto const out = static_cast<int64_t>(static_cast<double>(count) * ratio);
    FSLLM_CHECK(2 * out < count,
                "aggregator.BFT_args.trimmedmean_excluded_ratio = {} (of {} clients a round none is left). "
                "Lower it.",
                ratio, count);
    return by_coordinate(all, all_of(all), [&](at::Tensor const& sorted) {
      return sorted.narrow(0, out, count - 2 * out).mean(0);
    });
  };
}

/// El Mhamdi et al. 2018, section 4: of K - 2f clients, each chosen by Krum among those left, the mean of the
/// K - 4f values of each coordinate that lie closest to its median.
void bulyan(Config& config, std::string const& rule, FedAlgorithm& algorithm) {
  auto const faulty = byzantine_clients(config);
  if (rule != "bulyan") return;
  algorithm.whole_updates = true;
  algorithm.kind = Kind::gather;
  algorithm.combine = [faulty](GatheredMessages const& all, Communicator const& comm) {
    auto const count = all.tasks.size();
    FSLLM_CHECK(
        4 * faulty + 3 <= count,
        "aggregator.byzantine_node_num = {} (bulyan needs {} clients a round, and {} train). Lower it, or "
        "let more clients train (federate.sample_client_num).",
        faulty, 4 * faulty + 3, count);
    auto const chosen = bulyan_selection(squared_distances(all, comm), all_of(all), faulty);
    auto const kept = static_cast<int64_t>(count - 4 * faulty);
    return by_coordinate(all, chosen,
                         [&](at::Tensor const& sorted) { return mean_around_median(sorted, kept); });
  };
}

}  // namespace fsllm
