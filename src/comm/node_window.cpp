// SPDX-License-Identifier: Apache-2.0
#include "node_window.hpp"

#include <cstring>
#include <exception>

#include "fsllm/core/error.hpp"
#include "mpi.hpp"

namespace fsllm {
namespace {

/// Parts and buffers begin on cache lines.
constexpr int64_t kAlignment = 64;

}  // namespace

SharedWindow::SharedWindow(Communicator const& node, int64_t bytes, std::string const& purpose)
    : node_(node) {
  // One more line a part, as the window may begin anywhere.
  auto const size = static_cast<MPI_Aint>(bytes > 0 ? bytes + kAlignment : 0);
  void* own = nullptr;
  int const code = MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, node_.handle().comm, &own, &window_);
  if (code != MPI_SUCCESS) window_ = MPI_WIN_NULL;
  FSLLM_CHECK(
      code == MPI_SUCCESS,
      "no shared memory for {} (MPI_Win_allocate_shared of {:.1f} MiB failed). Enlarge /dev/shm (of a "
      "container: --shm-size=1g), or start one rank a node.",
      purpose, static_cast<double>(size) * node_.size() / 1048576);
  MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN);
  for (int rank = 0; rank < node_.size(); ++rank) {
    MPI_Aint part = 0;
    int unit = 0;
    void* base = nullptr;
    check_mpi(MPI_Win_shared_query(window_, rank, &part, &unit, &base), "MPI_Win_shared_query");
    auto const address = reinterpret_cast<uintptr_t>(base);
    parts_.push_back(static_cast<std::byte*>(base) + (kAlignment - address % kAlignment) % kAlignment);
  }
  check_mpi(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
  // First touch puts each part into its owner's memory domain.
  if (bytes > 0) std::memset(part(node_.rank()), 0, static_cast<size_t>(bytes));
  synchronize();
}

SharedWindow::~SharedWindow() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (window_ == MPI_WIN_NULL || finalized != 0 || std::uncaught_exceptions() > 0) return;
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
}

void SharedWindow::synchronize() const {
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
  node_.barrier();
  check_mpi(MPI_Win_sync(window_), "MPI_Win_sync");
}

NodeWindow::NodeWindow(Communicator const& node, int64_t buffer_bytes)
    : buffer_bytes_(std::max(buffer_bytes / kAlignment, int64_t{1}) * kAlignment),
      window_(node, 2 * buffer_bytes_, "the sums of a node's ranks") {}

}  // namespace fsllm
