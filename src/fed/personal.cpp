// SPDX-License-Identifier: Apache-2.0
#include "fsllm/fed/personal.hpp"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cstring>

#include "fsllm/core/error.hpp"

namespace fsllm {
namespace {

/// client id, then the bytes of each tensor in name order.
void pack(std::string& bytes, int64_t client, TensorMap const& state) {
  bytes.append(reinterpret_cast<char const*>(&client), sizeof(client));
  for (auto const& [name, tensor] : state) {
    auto const values = tensor.contiguous().cpu();
    bytes.append(static_cast<char const*>(values.const_data_ptr()), values.nbytes());
  }
}

void unpack(std::string const& bytes, TensorMap const& layout, PersonalStates& states) {
  for (size_t at = 0; at < bytes.size();) {
    int64_t client = 0;
    std::memcpy(&client, bytes.data() + at, sizeof(client));
    at += sizeof(client);
    for (auto const& [name, like] : layout) {
      auto values = at::empty_like(like, like.options().device(at::kCPU), at::MemoryFormat::Contiguous);
      FSLLM_ASSERT(at + values.nbytes() <= bytes.size());
      std::memcpy(values.mutable_data_ptr(), bytes.data() + at, values.nbytes());
      at += values.nbytes();
      states[client].emplace(name, values.to(like.device()));
    }
  }
}

}  // namespace

PersonalStates gather_personal(PersonalStates const& mine, TensorMap const& layout,
                               Communicator const& comm) {
  std::string bytes;
  for (auto const& [client, state] : mine) pack(bytes, client, state);
  PersonalStates all;
  for (auto const& part : comm.gather(bytes, 0)) unpack(part, layout, all);
  return all;
}

PersonalStates scatter_personal(PersonalStates const& all, TensorMap const& layout,
                                std::vector<int64_t> const& my_clients, Communicator const& comm) {
  std::string bytes;
  for (auto const& [client, state] : all) pack(bytes, client, state);
  comm.broadcast(bytes, 0);
  PersonalStates states;
  unpack(bytes, layout, states);
  std::erase_if(states, [&](auto const& item) {
    return std::find(my_clients.begin(), my_clients.end(), item.first) == my_clients.end();
  });
  return states;
}

}  // namespace fsllm
