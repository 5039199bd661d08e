// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstring>
#include <type_traits>
#include <vector>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// Collective: the elements of all ranks, in rank order, on every rank. Plain structs travel as their bytes:
/// the ranks of one job are processes of one program.
template <class T>
requires std::is_trivially_copyable_v<T> std::vector<T> all_gather(std::vector<T> const& mine,
                                                                   Communicator const& comm) {
  std::string bytes(mine.size() * sizeof(T), '\0');
  if (!mine.empty()) std::memcpy(bytes.data(), mine.data(), bytes.size());
  std::vector<T> all;
  for (auto const& part : comm.all_gather(bytes)) {
    auto const old = all.size();
    all.resize(old + part.size() / sizeof(T));
    if (!part.empty()) std::memcpy(all.data() + old, part.data(), part.size());
  }
  return all;
}

}  // namespace fsllm
