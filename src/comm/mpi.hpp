// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <mpi.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "fsllm/comm/communicator.hpp"

namespace fsllm {

/// What Communicator shares: MPI's handle, freed by the last owner unless it is MPI's own or MPI has ended.
struct Communicator::Handle {
  Handle(MPI_Comm communicator, bool is_owned, std::shared_ptr<Traffic> counts = std::make_shared<Traffic>())
      : comm(communicator), owned(is_owned), traffic(std::move(counts)) {}
  ~Handle();
  Handle(Handle const&) = delete;
  Handle& operator=(Handle const&) = delete;
  MPI_Comm comm;
  bool owned;
  std::shared_ptr<Traffic> traffic;
};

/// An Error with MPI's text unless `code` is MPI_SUCCESS; `what` names the MPI function.
void check_mpi(int code, char const* what);

/// Waits for all of them, as every blocking call of this module does: whoever is waited for too long is
/// named.
void complete(std::span<MPI_Request> requests);

/// MPI counts are 32 bit: calls part(offset, count) for consecutive parts of at most 2^30.
template <class Part>
void for_each_part(int64_t total, Part&& part) {
  constexpr int64_t kLargest = int64_t{1} << 30;
  for (int64_t offset = 0; offset < total; offset += kLargest)
    part(offset, static_cast<int>(std::min(kLargest, total - offset)));
}

}  // namespace fsllm
