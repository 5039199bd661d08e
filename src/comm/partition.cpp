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

void all_reduce_sum(Collective& collective, std::vector<at::Tensor> const& tensors) {
  int const ranks = collective.communicator().size(), rank = collective.communicator().rank();
  if (ranks == 1 || tensors.empty()) return;
  auto const type = tensors.front().scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  int64_t elements = 0;
  for (auto const& tensor : tensors) elements += tensor.numel();
  auto const size = partition_size(elements, ranks);
  auto const whole = at::zeros({size * ranks}, tensors.front().options().dtype(type).requires_grad(false));
  int64_t at = 0;
  for (auto const& tensor : tensors) {
    whole.narrow(0, at, tensor.numel()).copy_(tensor.detach().reshape(-1));
    at += tensor.numel();
  }
  auto const sums = at::zeros({size}, whole.options());
  collective.reduce_scatter({whole}, {sums})->finish();
  whole.narrow(0, rank * size, size).copy_(sums);
  collective.all_gather({whole})->finish();
  at = 0;
  for (auto const& tensor : tensors) {
    tensor.detach().copy_(whole.narrow(0, at, tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
}

double sum_in_order(Communicator const& comm, double value) {
  double sum = 0;
  for (double const one : all_gather(std::vector{value}, comm)) sum += one;
  return sum;
}

}  // namespace fsllm
