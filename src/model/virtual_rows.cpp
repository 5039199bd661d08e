// SPDX-License-Identifier: Apache-2.0
#include "virtual_rows.hpp"

#include <ATen/ops/cat.h>

#include <algorithm>

namespace fsllm::detail {

VirtualRows::VirtualRows(VirtualTokens* tokens, RaggedInput const& input, KvCache const* cache,
                         Pass const& of_tokens, at::ScalarType compute)
    : given_(input.offsets), offsets_(input.offsets) {
  if (tokens == nullptr) return;
  for (int64_t row = 0; row < input.num_rows(); ++row)
    begins_.push_back(cache == nullptr || cache->past(row) == 0);
  if (std::find(begins_.begin(), begins_.end(), true) == begins_.end()) return;
  auto const values = tokens->values(of_tokens).to(compute);
  if (values.dim() > 2) {
    keys_values_ = values;
    return;
  }
  embeddings_ = values;
  int64_t added = 0;
  for (size_t row = 0; row < begins_.size(); ++row) {
    if (begins_[row]) added += tokens->count();
    offsets_[row + 1] += added;
  }
}

at::Tensor VirtualRows::insert(at::Tensor const& x) const {
  if (!embeddings_.defined()) return x;
  std::vector<at::Tensor> parts;
  for (size_t row = 0; row < begins_.size(); ++row) {
    if (begins_[row]) parts.push_back(embeddings_);
    parts.push_back(x.narrow(0, given_[row], given_[row + 1] - given_[row]));
  }
  return at::cat(parts);
}

at::Tensor VirtualRows::remove(at::Tensor const& x) const {
  if (!embeddings_.defined()) return x;
  std::vector<at::Tensor> parts;
  for (size_t row = 0; row < begins_.size(); ++row) {
    int64_t const length = given_[row + 1] - given_[row];
    parts.push_back(x.narrow(0, offsets_[row + 1] - length, length));
  }
  return at::cat(parts);
}

}  // namespace fsllm::detail
