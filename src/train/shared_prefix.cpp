// SPDX-License-Identifier: Apache-2.0
#include "shared_prefix.hpp"

#include <algorithm>

namespace fsllm {
namespace {

/// A pass with one row more costs as much as a few tokens.
constexpr int64_t kFewestShared = 8;

/// Tokens that all rows begin with; each row keeps one of its own.
int64_t common_tokens(Batch const& batch) {
  auto const* const ids = batch.ids.data();
  int64_t common = batch.offsets[1] - 1;
  for (size_t row = 1; row + 1 < batch.offsets.size(); ++row) {
    auto const* const own = ids + batch.offsets[row];
    common = std::min(common, batch.offsets[row + 1] - batch.offsets[row] - 1);
    common = std::mismatch(ids, ids + common, own).first - ids;
  }
  return common;
}

}  // namespace

std::optional<SharedPrefix> share_prefix(Batch const& batch, ModelConfig const& model) {
  if (batch.num_rows() < 2) return {};
  auto const common = common_tokens(batch);
  if (common < kFewestShared) return {};
  for (size_t row = 0; row + 1 < batch.offsets.size(); ++row)
    if (model.rope_changes(common, batch.offsets[row + 1] - batch.offsets[row])) return {};
  SharedPrefix shared;
  shared.ids.assign(batch.ids.begin(), batch.ids.begin() + common);
  shared.offsets = {0, common};
  auto target = batch.target_positions.begin();
  for (size_t row = 0; row + 1 < batch.offsets.size(); ++row) {
    int64_t const begin = batch.offsets[row], end = batch.offsets[row + 1];
    int64_t const behind = shared.offsets.back() - common - begin;  // what positions of the row move by
    shared.ids.insert(shared.ids.end(), batch.ids.begin() + begin + common, batch.ids.begin() + end);
    shared.offsets.push_back(shared.offsets.back() + end - begin - common);
    for (; target != batch.target_positions.end() && *target < end; ++target)
      shared.target_positions.push_back(*target < begin + common ? *target - begin : *target + behind);
  }
  return shared;
}

}  // namespace fsllm
