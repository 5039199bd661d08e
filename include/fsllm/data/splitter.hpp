// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

#include "fsllm/core/table.hpp"
#include "fsllm/data/data_config.hpp"
#include "fsllm/data/row_table.hpp"

namespace fsllm {

/// Sample indices of each client and split; every index (of the subsample) exactly once.
struct SplitPlan {
  struct Parts {
    std::vector<int64_t> train, val, test;
  };
  Parts server;                ///< the union of all clients; val and test are the server's held-out data
  std::vector<Parts> clients;  ///< client k is entry k - 1
};

/// What a splitter works from.
struct SplitInput {
  RowTable const& rows;
  DataConfig const& config;
  int64_t client_num = 0;
  uint64_t seed = 0;
};
/// Fills plan.clients from plan.server. It may trade rows between the parts of plan.server, never their
/// numbers.
using Splitter = void (*)(SplitInput const&, SplitPlan& plan);
/// A new splitter is one more row here.
std::vector<Row<Splitter>> const& splitters();

/// train / val / test first (training rows = int(share·n)), then each part over the clients, keyed by `seed`;
/// rows of a part keep the order of the file; val and test follow the client's distribution of categories in
/// train. client_num above the training rows, categories or field values of the data is an Error with advice;
/// 0 means "as many as there are" for natural.
SplitPlan plan_split(RowTable const& rows, DataConfig const& config, int64_t client_num, uint64_t seed);

}  // namespace fsllm
