// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <filesystem>
#include <string>

#include "fsllm/io/shard.hpp"

namespace fsllm {

/// How unlike the clients' training rows are.
struct Heterogeneity {
  double size_variation = 0;    ///< standard deviation of rows a client over their mean
  double total_variation = 0;   ///< mean over clients, from the categories of all rows: 0 alike, 1 disjoint
  double jensen_shannon = 0;    ///< the same as Jensen-Shannon divergence, bits
  double effective_groups = 0;  ///< mean over clients of 2^entropy: 1 for one category a client
  bool has_groups = false;      ///< the last three mean something
};
Heterogeneity heterogeneity(ShardIndex const& index);

/// A table of rows, tokens and the three commonest categories of each client, and the figures above.
std::string split_report(ShardIndex const& index);
/// The same as a picture: a bar a client, as long as its rows, coloured by category.
std::string split_plot(ShardIndex const& index);
/// DIR/report.txt and DIR/report.svg, made in `scratch` (see AtomicFile).
void write_split_report(std::filesystem::path const& dir, ShardIndex const& index,
                        std::filesystem::path const& scratch = {});

}  // namespace fsllm
