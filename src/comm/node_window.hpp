// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <cstddef>
#include <vector>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// One shared-memory window over the ranks of a node: each rank owns a slot of two buffers, and reads and
/// writes all slots. Two buffers let a rank fill the next one while others still read the one before.
class NodeWindow {
 public:
  /// Collective over `node`.
  NodeWindow(Communicator const& node, int64_t buffer_bytes);
  /// Collective.
  ~NodeWindow();
  NodeWindow(NodeWindow const&) = delete;
  NodeWindow& operator=(NodeWindow const&) = delete;

  int64_t buffer_bytes() const { return buffer_bytes_; }
  std::byte* slot(int node_rank, int buffer) const {
    return slots_[static_cast<size_t>(node_rank)] + buffer * buffer_bytes_;
  }
  /// Collective: what any rank wrote before is seen by every rank after.
  void synchronize() const;

 private:
  Communicator node_;
  int64_t buffer_bytes_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<std::byte*> slots_;
};

}  // namespace fsllm
