// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/node_memory.hpp"

#include "node_window.hpp"

namespace fsllm {

struct NodeMemory::Window {
  Window(Communicator const& node, int64_t bytes, std::string const& purpose)
      : shared(node, bytes, purpose) {}
  SharedWindow shared;
};

NodeMemory::NodeMemory(Communicator const& node, int64_t bytes, std::string const& purpose)
    : window_(std::make_unique<Window>(node, node.rank() == 0 ? bytes : 0, purpose)) {}

NodeMemory::~NodeMemory() = default;

std::byte* NodeMemory::data() const {
  return window_->shared.part(0);
}

void NodeMemory::synchronize() const {
  window_->shared.synchronize();
}

}  // namespace fsllm
