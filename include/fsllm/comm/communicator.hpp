// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fsllm {

/// Bytes handed to MPI (its messages and its shared memory) or NCCL by this rank since the start.
struct Traffic {
  int64_t broadcast_bytes = 0;
  int64_t reduce_bytes = 0;     ///< and what is gathered
  int64_t partition_bytes = 0;  ///< of Collective::all_gather and reduce_scatter
};

/// Starts MPI (MPI_THREAD_FUNNELED) and ends it. One in main; everything else gets a Communicator.
/// MPI's errors become fsllm::Error with MPI's own text. While an exception unwinds, the destructor leaves
/// MPI running, as other ranks may wait in a collective: the handler then calls abort_all_ranks.
class MpiSession {
 public:
  MpiSession(int& argc, char**& argv);
  ~MpiSession();
  MpiSession(MpiSession const&) = delete;
  MpiSession& operator=(MpiSession const&) = delete;
};

/// Ends all ranks with this exit code. For the one rank that failed while others may wait in a collective.
[[noreturn]] void abort_all_ranks(int exit_code);

/// An Error with advice when this process is alone although its launcher started several
/// (OMPI_COMM_WORLD_SIZE, PMI_SIZE, PMIX_RANK or the tasks of a Slurm step disagree with a world of size 1).
void check_launch();

/// Whether the launcher that started this process (mpirun, a daemon of it or of Slurm) has ended: nobody
/// would end the ranks then. Never true for a process that was started alone.
bool launcher_has_ended();

/// "Open MPI v4.1.4, ..." for --version.
std::string mpi_library_version();

/// A value type over an MPI communicator; copies share it, the last one frees it.
/// Every member function except rank(), size() and handle() is Collective over this communicator.
class Communicator {
 public:
  static Communicator world();
  static Communicator self();

  int rank() const { return rank_; }
  int size() const { return size_; }

  Communicator split(int color, int key) const;
  /// The ranks that share this node's memory.
  Communicator split_by_node() const;

  /// The world's communicator: returns when every rank has come, and is true; that of a part of the ranks
  /// does nothing, and is false. Here as in every wait, ranks that make the others wait long are named
  /// (comm/stall.hpp).
  bool meet() const;
  void barrier() const;
  /// The bytes of `root` on every rank (any length; chunks above 2^30 bytes).
  void broadcast(std::string& bytes, int root) const;
  /// Each rank's bytes, in rank order, on `root` (empty vector elsewhere).
  std::vector<std::string> gather(std::string const& bytes, int root) const;
  /// Each rank's bytes, in rank order, on every rank.
  std::vector<std::string> all_gather(std::string const& bytes) const;
  /// to[r] goes to rank r; what each rank sent here, in rank order.
  std::vector<std::string> all_to_all(std::vector<std::string> const& to) const;
  int64_t sum(int64_t value) const;
  int64_t max(int64_t value) const;
  bool any(bool value) const { return max(value ? 1 : 0) != 0; }
  bool all_equal(uint64_t value) const;

  /// What broadcast(), gather() and all_to_all() have sent from here, over this communicator and those that
  /// were split off it. Not collective.
  Traffic const& traffic() const;

  struct Handle;
  Handle const& handle() const { return *handle_; }

 private:
  explicit Communicator(std::shared_ptr<Handle const> handle);
  std::shared_ptr<Handle const> handle_;
  int rank_, size_;
};

/// Collective: host name, local rank and pinned cores of every rank, as a table for the log.
std::string placement_table(Communicator const& world);

}  // namespace fsllm
