// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// A few numbers from one rank to another, outside of collective calls. What one rank sends to another comes
/// in the order in which it was sent.
struct Letter {
  int from = 0;
  std::vector<int64_t> values;
};

class Mailbox {
 public:
  explicit Mailbox(Communicator const& comm);
  ~Mailbox();
  Mailbox(Mailbox const&) = delete;
  Mailbox& operator=(Mailbox const&) = delete;

  /// Returns at once.
  void send(int rank, std::vector<int64_t> values);
  /// The next letter, if one has come.
  std::optional<Letter> receive();

 private:
  struct Sent;
  Communicator const& comm_;
  std::list<Sent> sent_;  ///< not yet known to have left
};

}  // namespace fsllm
