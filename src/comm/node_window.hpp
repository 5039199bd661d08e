// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// Shared memory of a node: a part of each rank, which all ranks read and write.
class SharedWindow {
 public:
  /// Collective over `node`. `bytes` is the size of this rank's part; `purpose` is for messages.
  SharedWindow(Communicator const& node, int64_t bytes, std::string const& purpose);
  /// Collective.
  ~SharedWindow();
  SharedWindow(SharedWindow const&) = delete;
  SharedWindow& operator=(SharedWindow const&) = delete;

  /// Where the part of a rank begins, on a cache line.
  std::byte* part(int node_rank) const { return parts_[static_cast<size_t>(node_rank)]; }
  /// Collective: what any rank wrote before is seen by every rank after.
  void synchronize() const;

 private:
  Communicator node_;
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<std::byte*> parts_;
};

/// One shared-memory window over the ranks of a node: each rank owns a slot of two buffers, and reads and
/// writes all slots. Two buffers let a rank fill the next one while others still read the one before.
class NodeWindow {
 public:
  /// Collective over `node`.
  NodeWindow(Communicator const& node, int64_t buffer_bytes);

  int64_t buffer_bytes() const { return buffer_bytes_; }
  std::byte* slot(int node_rank, int buffer) const {
    return window_.part(node_rank) + buffer * buffer_bytes_;
  }
  /// Collective: what any rank wrote before is seen by every rank after.
  void synchronize() const { window_.synchronize(); }

 private:
  int64_t buffer_bytes_;
  SharedWindow window_;
};

}  // namespace fsllm
