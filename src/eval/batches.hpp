// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <vector>

#include "fsllm/eval/scoring.hpp"

namespace fsllm::detail {

/// Calls work(BatchDone) for each batch of a share, given the rows of every batch.
template <class Work>
void for_each_batch(BatchShare const& share, std::vector<int64_t> const& rows, Work const& work) {
  std::vector<int64_t> open;
  for (int64_t batch = 0; batch < std::ssize(rows); ++batch)
    if (!share.done.contains(batch)) open.push_back(batch);
  for (int64_t first = 0; first + share.index < std::ssize(open); first += share.count) {
    int64_t over = 0;
    for (int64_t i = first; i < std::min(first + share.count, std::ssize(open)); ++i)
      over += rows[static_cast<size_t>(open[static_cast<size_t>(i)])];
    auto const batch = open[static_cast<size_t>(first + share.index)];
    work(BatchDone{batch, rows[static_cast<size_t>(batch)], over});
  }
}

}  // namespace fsllm::detail
