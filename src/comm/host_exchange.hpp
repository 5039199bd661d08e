// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <memory>
#include <vector>

#include "fsllm/comm/collective.hpp"

namespace fsllm {

/// Collective::all_gather and reduce_scatter by messages between pairs of ranks, which go on while the caller
/// computes. `bytes` counts what this rank sends.
std::unique_ptr<Exchange> host_all_gather(Communicator const& comm, std::vector<at::Tensor> const& whole,
                                          int64_t& bytes);
std::unique_ptr<Exchange> host_reduce_scatter(Communicator const& comm, std::vector<at::Tensor> const& whole,
                                              std::vector<at::Tensor> const& sums, int64_t& bytes);

}  // namespace fsllm
