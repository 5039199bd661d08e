// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/tensor_map.hpp"

namespace fsllm {

/// Elements of the part that each of `ranks` ranks owns of a tensor (ZeRO): equal for all, a multiple of 16,
/// so that parts begin on cache lines; what is beyond the tensor's end is padding.
int64_t partition_size(int64_t elements, int ranks);

/// An exchange under way. Its tensors may be used, or changed, when finish() has returned.
struct Exchange {
  virtual ~Exchange() = default;
  virtual void finish() = 0;
};

/// Moves TensorMaps between the ranks of one communicator. Every member function is Collective.
/// In debug builds names, shapes and dtypes are compared across ranks before data moves.
struct Collective {
  virtual ~Collective() = default;
  virtual Communicator const& communicator() const = 0;
  /// Values of `root` on every rank, in place.
  virtual void broadcast(TensorMap& map, int root) = 0;
  /// Sum over ranks of every tensor, in place on `root` (undefined elsewhere). bf16 and fp16 add in fp32.
  virtual void reduce_sum(TensorMap& map, int root) = 0;
  /// Wrapping 64-bit integer sum, in place on `root` (undefined elsewhere). Order-free, hence exact.
  virtual void reduce_sum(std::span<int64_t> values, int root) = 0;
  /// Begins to give every rank all parts of `whole`: one-dimensional tensors of size() · partition_size
  /// elements, in which each rank's own part (the rank-th) has its values. Ranks begin their exchanges in one
  /// order.
  virtual std::unique_ptr<Exchange> all_gather(std::vector<at::Tensor> const& whole) = 0;
  /// Begins to add up tensors like these: sums[i] [partition_size] += Σ over ranks of this rank's part of
  /// whole[i], in fp32 (fp64) and, through host memory, in the order of ranks: the same bits wherever they
  /// run.
  virtual std::unique_ptr<Exchange> reduce_scatter(std::vector<at::Tensor> const& whole,
                                                   std::vector<at::Tensor> const& sums) = 0;
  /// Since it was made, its communicator's messages among them.
  virtual Traffic traffic() const = 0;
};

/// Collective: host memory. Inside a node through one shared-memory window (MPI_Win_allocate_shared), across
/// nodes one leader a node through MPI. `chunk_bytes` bounds the window a rank. Floats are added in rank
/// order inside a node: the same bits in every run of one placement.
std::unique_ptr<Collective> make_host_collective(Communicator const& comm, int64_t chunk_bytes = 1 << 20);
/// The same with `node` as the ranks that share memory: comm.split_by_node(), or any part of it.
std::unique_ptr<Collective> make_host_collective(Communicator const& comm, Communicator const& node,
                                                 int64_t chunk_bytes);

/// Of what all_reduce_sum() adds up at a time: 16 MiB, so that buffers stay small beside a model.
constexpr int64_t kSumBucketElements = int64_t{4} << 20;
/// Collective: sums over ranks of every tensor, in place on every rank, by reduce_scatter() and all_gather().
void all_reduce_sum(Collective& collective, std::vector<at::Tensor> const& tensors);
/// Collective: the sum over ranks in their order, on every rank.
double sum_in_order(Communicator const& comm, double value);

/// Collective: an Error on every rank, naming the first rank and tensor that differ, unless names, shapes and
/// dtypes agree. `what` says which operation and must be the same text too.
void check_layout_across_ranks(Communicator const& comm, TensorMap const& map, std::string const& what);

}  // namespace fsllm
