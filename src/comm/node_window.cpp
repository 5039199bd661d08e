// SPDX-License-Identifier: Apache-2.0
#include "node_window.hpp"

#include <cstring>
#include <exception>

#include "fsllm/core/error.hpp"
#include "mpi.hpp"

namespace fsllm {
namespace {

/// Slots and buffers begin on cache lines.
constexpr int64_t kAlignment = 64;

}  // namespace

NodeWindow::NodeWindow(Communicator const& node, int64_t buffer_bytes)
    : node_(node), buffer_bytes_(std::max(buffer_bytes / kAlignment, int64_t{1}) * kAlignment) {
  // One more line a slot, as the window may begin anywhere.
  auto const bytes = static_cast<MPI_Aint>(2 * buffer_bytes_ + kAlignment);
  void* own = nullptr;
  int const code = MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, node_.handle().comm, &own, &window_);
  if (code != MPI_SUCCESS) window_ = MPI_WIN_NULL;
  FSLLM_CHECK(code == MPI_SUCCESS,
              "no shared memory for the sums of a node's ranks (MPI_Win_allocate_shared of {:.1f} MiB "
              "failed). Enlarge "
              "/dev/shm (of a container: --shm-size=1g), or start one rank a node.",
              static_cast<double>(bytes) * node_.size() / 1048576);
  MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN);
  for (int rank = 0; rank < node_.size(); ++rank) {
    MPI_Aint size = 0;
    int unit = 0;
    void* base = nullptr;
    check_mpi(MPI_Win_shared_query(window_, rank, &size, &unit, &base), "MPI_Win_shared_query");
    auto const address = reinterpret_cast<uintptr_t>(base);
    slots_.push_back(static_cast<std::byte*>(base) + (kAlignment - address % kAlignment) % kAlignment);
  }
  check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
  // First touch puts each slot into its owner's memory domain.
  std::memset(slot(node_.rank(), 0), 0, static_cast<size_t>(2 * buffer_bytes_));
  synchronize();
}

NodeWindow::~NodeWindow() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (window_ == MPI_WIN_NULL || finalized != 0 || std::uncaught_exceptions() > 0) return;
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
}

void NodeWindow::synchronize() const {
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
  node_.barrier();
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
}

}  // namespace fsllm
