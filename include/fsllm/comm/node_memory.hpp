// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// Zeroed memory that the ranks of a node have together, 64-byte aligned. Written by one rank at a time.
class NodeMemory {
 public:
  /// Collective over `node`; `purpose` is for messages.
  NodeMemory(Communicator const& node, int64_t bytes, std::string const& purpose);
  /// Collective.
  ~NodeMemory();
  NodeMemory(NodeMemory const&) = delete;
  NodeMemory& operator=(NodeMemory const&) = delete;

  std::byte* data() const;
  /// Collective: what any rank wrote before is seen by every rank after.
  void synchronize() const;

 private:
  struct Window;
  std::unique_ptr<Window> window_;
};

}  // namespace fsllm
