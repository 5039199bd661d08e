// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <vector>

#include "fsllm/comm/collective.hpp"
#include "fsllm/comm/gather.hpp"

namespace fsllm {

int64_t partition_size(int64_t elements, int ranks) {
  constexpr int64_t kStep = 16;
  int64_t const steps = (elements + kStep - 1) / kStep;
  return (steps + ranks - 1) / ranks * kStep;
}

namespace {

/// Sums the pieces, which hold `elements` together, over ranks, in the order of ranks.
void sum_pieces(Collective& collective, std::vector<at::Tensor> const& pieces, int64_t elements) {
  int const ranks = collective.communicator().size(), rank = collective.communicator().rank();
  auto const type = pieces.front().scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  auto const size = partition_size(elements, ranks);
  auto const whole = at::zeros({size * ranks}, pieces.front().options().dtype(type));
  int64_t at = 0;
  for (auto const& piece : pieces) {
    whole.narrow(0, at, piece.numel()).copy_(piece);
    at += piece.numel();
  }
  auto const sums = at::zeros({size}, whole.options());
  collective.reduce_scatter({whole}, {sums})->finish();
  whole.narrow(0, rank * size, size).copy_(sums);
  collective.all_gather({whole})->finish();
  at = 0;
  for (auto const& piece : pieces) {
    piece.copy_(whole.narrow(0, at, piece.numel()));
    at += piece.numel();
  }
}

}  // namespace

void all_reduce_sum(Collective& collective, std::vector<at::Tensor> const& tensors) {
  if (collective.communicator().size() == 1) return;
  std::vector<at::Tensor> pieces;
  int64_t filled = 0;
  for (auto const& tensor : tensors) {
    auto const values = tensor.detach();
    auto const flat = values.contiguous().view(-1);
    for (int64_t begin = 0; begin < flat.numel();) {
      int64_t const count = std::min(kSumBucketElements - filled, flat.numel() - begin);
      pieces.push_back(flat.narrow(0, begin, count));
      begin += count;
      filled += count;
      if (filled < kSumBucketElements) continue;
      sum_pieces(collective, pieces, filled);
      pieces.clear();
      filled = 0;
    }
    if (values.is_contiguous()) continue;
    if (filled > 0) sum_pieces(collective, pieces, filled);
    pieces.clear();
    filled = 0;
    values.copy_(flat.view(values.sizes()));
  }
  if (filled > 0) sum_pieces(collective, pieces, filled);
}

double sum_in_order(Communicator const& comm, double value) {
  double sum = 0;
  for (double const one : all_gather(std::vector{value}, comm)) sum += one;
  return sum;
}

}  // namespace fsllm
