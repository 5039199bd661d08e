// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <map>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// State that belongs to single clients (their own models under method "local"), on the rank that owns the
/// client.
using PersonalStates = std::map<int64_t, TensorMap>;

/// Collective: the states of all ranks on rank 0 (empty elsewhere). `layout` gives names, shapes and types.
PersonalStates gather_personal(PersonalStates const& mine, TensorMap const& layout, Communicator const& comm);

/// Collective: hands rank 0's states to the ranks that own the clients now.
PersonalStates scatter_personal(PersonalStates const& all, TensorMap const& layout,
                                std::vector<int64_t> const& my_clients, Communicator const& comm);

}  // namespace fsllm
