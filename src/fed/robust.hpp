// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <vector>

#include "fsllm/fed/algorithm.hpp"

namespace fsllm {

/// Key aggregator.byzantine_node_num.
size_t byzantine_clients(Config& config);

/// [K, K]: squared distances between the messages of all pairs of clients, over all tensors. Collective.
std::vector<double> squared_distances(GatheredMessages const& all, Communicator const& comm);

/// Krum's score (Blanchard et al. 2017, section 4) of each of `clients`, places among the K: the sum of the
/// squared distances to its `neighbours` nearest among them.
std::vector<double> krum_scores(std::vector<double> const& distances, std::vector<size_t> const& clients,
                                size_t neighbours);

}  // namespace fsllm
