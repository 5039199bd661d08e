// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "fsllm/comm/collective.hpp"
#include "fsllm/core/error.hpp"
#include "host_exchange.hpp"
#include "mpi.hpp"
#include "node_window.hpp"
#include "tensor_stream.hpp"

namespace fsllm {
namespace {

/// Elements that are added over all slots before the next ones: they stay in the first-level cache.
constexpr int64_t kAddedAtOnce = 1024;

template <class T>
MPI_Datatype mpi_type();
template <>
MPI_Datatype mpi_type<float>() {
  return MPI_FLOAT;
}
template <>
MPI_Datatype mpi_type<double>() {
  return MPI_DOUBLE;
}
template <>
MPI_Datatype mpi_type<uint64_t>() {
  return MPI_UINT64_T;
}

template <class T>
void add(T* __restrict to, T const* __restrict from, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

class HostCollective : public Collective {
 public:
  HostCollective(Communicator const& comm, Communicator const& node, int64_t chunk_bytes)
      : comm_(comm),
        node_(node),
        leaders_(comm.split(node.rank() == 0 ? 0 : 1, comm.rank())),
        window_(node, chunk_bytes / 2) {
    learn_places();
    messages_before_ = comm_.traffic();
  }

  Communicator const& communicator() const override { return comm_; }
  Traffic traffic() const override {
    auto const& messages = comm_.traffic();
    return {traffic_.broadcast_bytes + messages.broadcast_bytes - messages_before_.broadcast_bytes,
            traffic_.reduce_bytes + messages.reduce_bytes - messages_before_.reduce_bytes,
            traffic_.partition_bytes};
  }

  void broadcast(TensorMap& map, int root) override {
#ifdef FSLLM_DEBUG
    check_layout_across_ranks(comm_, map, fmt::format("broadcast from rank {}", root));
#endif
    if (comm_.size() == 1) return;
    comm_.meet();
    auto stream = TensorStream::of_bytes(map);
    for (int64_t begin = 0; begin < stream.size(); begin += window_.buffer_bytes())
      broadcast_chunk(stream, begin, std::min(window_.buffer_bytes(), stream.size() - begin), root);
    if (comm_.rank() != root) stream.finish();
  }

  void reduce_sum(TensorMap& map, int root) override {
#ifdef FSLLM_DEBUG
    check_layout_across_ranks(comm_, map, fmt::format("sum to rank {}", root));
#endif
    comm_.meet();
    reduce_values<float>(map, at::kFloat, root);
    reduce_values<double>(map, at::kDouble, root);
    reduce_values<uint64_t>(map, at::kLong, root);
  }

  void reduce_sum(std::span<int64_t> values, int root) override {
#ifdef FSLLM_DEBUG
    check_layout_across_ranks(comm_, {}, fmt::format("sum of {} integers to rank {}", values.size(), root));
#endif
    comm_.meet();
    reduce_chunks<uint64_t>(
        static_cast<int64_t>(values.size()), root,
        [&](int64_t begin, int64_t count, uint64_t* to) {
          std::memcpy(to, &values[static_cast<size_t>(begin)], count * sizeof *to);
        },
        [&](int64_t begin, int64_t count, uint64_t const* from) {
          std::memcpy(&values[static_cast<size_t>(begin)], from, count * sizeof *from);
        });
  }

  std::unique_ptr<Exchange> all_gather(std::vector<at::Tensor> const& whole) override {
    return host_all_gather(comm_, whole, traffic_.partition_bytes);
  }
  std::unique_ptr<Exchange> reduce_scatter(std::vector<at::Tensor> const& whole,
                                           std::vector<at::Tensor> const& sums) override {
    return host_reduce_scatter(comm_, whole, sums, traffic_.partition_bytes);
  }

 private:
  /// Where a rank of the communicator sits: its node (a rank among the leaders) and its rank there.
  struct Place {
    int node = 0, rank_in_node = 0;
  };

  void learn_places() {
    std::string leader = fmt::format("{}", leaders_.rank());
    node_.broadcast(leader, 0);
    for (auto const& text : comm_.all_gather(fmt::format("{} {}", leader, node_.rank()))) {
      Place place;
      auto const blank = text.find(' ');
      std::from_chars(text.data(), text.data() + blank, place.node);
      std::from_chars(text.data() + blank + 1, text.data() + text.size(), place.rank_in_node);
      places_.push_back(place);
    }
    nodes_ = 1 + std::max_element(places_.begin(), places_.end(), [](auto a, auto b) {
                   return a.node < b.node;
                 })->node;
  }

  Place mine() const {
    return places_[static_cast<size_t>(comm_.rank())];
  }
  Place place(int rank) const {
    return places_[static_cast<size_t>(rank)];
  }
  bool leads() const {
    return node_.rank() == 0;
  }
  /// Data cross between nodes in the leaders' slots, so a root that does not lead needs a step more on its
  /// node.
  bool needs_relay(int root) const {
    return nodes_ > 1 && place(root).rank_in_node != 0 && place(root).node == mine().node;
  }

  void broadcast_chunk(TensorStream& stream, int64_t begin, int64_t bytes, int root) {
    std::byte* const shared = window_.slot(0, buffer_);
    if (comm_.rank() == root) {
      stream.load(begin, bytes, shared);
      traffic_.broadcast_bytes += bytes;
    }
    if (needs_relay(root)) window_.synchronize();
    if (nodes_ > 1 && leads()) {
      MPI_Request request = MPI_REQUEST_NULL;
      check_mpi(MPI_Ibcast(shared, static_cast<int>(bytes), MPI_BYTE, place(root).node,
                           leaders_.handle().comm, &request),
                "MPI_Bcast");
      complete({&request, 1});
    }
    window_.synchronize();
    if (comm_.rank() != root) stream.store(begin, bytes, shared);
    buffer_ ^= 1;
  }

  template <class T>
  void reduce_values(TensorMap& map, at::ScalarType wire, int root) {
    auto stream = TensorStream::of_values(map, wire);
    reduce_chunks<T>(
        stream.size(), root, [&](int64_t begin, int64_t count, T* to) { stream.load(begin, count, to); },
        [&](int64_t begin, int64_t count, T const* from) { stream.store(begin, count, from); });
    if (comm_.rank() == root) stream.finish();
  }

  /// Chunk after chunk in two buffers: while all load one, they add the slices of the one before, so that
  /// ranks meet once a chunk. A root that does not lead its node reads what is its leader's slot, and costs
  /// one more.
  template <class T, class Load, class Store>
  void reduce_chunks(int64_t total, int root, Load&& load, Store&& store) {
    if (comm_.size() == 1 || total == 0) return;
    int64_t const largest = window_.buffer_bytes() / static_cast<int64_t>(sizeof(T));
    auto const count_at = [&](int64_t begin) { return std::min(largest, total - begin); };
    for (int64_t begin = 0; begin < total + largest; begin += largest) {
      if (begin < total) {
        load(begin, count_at(begin), slot<T>(node_.rank(), buffer_));
        traffic_.reduce_bytes += count_at(begin) * static_cast<int64_t>(sizeof(T));
      }
      int64_t const before = begin - largest;
      int const summed = buffer_ ^ 1;
      if (before >= 0) add_my_slice<T>(count_at(before), summed);
      window_.synchronize();
      if (before >= 0) {
        if (nodes_ > 1 && leads()) reduce_leaders<T>(count_at(before), place(root).node, summed);
        if (needs_relay(root)) window_.synchronize();
        if (comm_.rank() == root) store(before, count_at(before), slot<T>(0, summed));
        if (place(root).rank_in_node != 0) window_.synchronize();
      }
      if (begin < total) buffer_ ^= 1;
    }
  }

  template <class T>
  T* slot(int node_rank, int buffer) const {
    return reinterpret_cast<T*>(window_.slot(node_rank, buffer));
  }

  /// Adds this rank's part of [0, count) of all slots into slot 0, slot after slot.
  template <class T>
  void add_my_slice(int64_t count, int buffer) const {
    int64_t const lines = (count * static_cast<int64_t>(sizeof(T)) + 63) / 64,
                  per_line = 64 / static_cast<int64_t>(sizeof(T));
    int64_t const begin = std::min(lines * node_.rank() / node_.size() * per_line, count);
    int64_t const end = std::min(lines * (node_.rank() + 1) / node_.size() * per_line, count);
    for (int64_t block = begin; block < end; block += kAddedAtOnce)
      for (int from = 1; from < node_.size(); ++from)
        add(slot<T>(0, buffer) + block, slot<T>(from, buffer) + block, std::min(kAddedAtOnce, end - block));
  }

  template <class T>
  void reduce_leaders(int64_t count, int root_node, int buffer) {
    bool const receives = leaders_.rank() == root_node;
    // Not MPI_IN_PLACE: with it MPICH 4.0 to 4.1.1 crash at roots other than 0 (pmodels/mpich#6540).
    auto* const sum = slot<T>(0, buffer);
    auto const* const mine = reinterpret_cast<std::byte const*>(sum);
    if (receives) own_part_.assign(mine, mine + count * static_cast<int64_t>(sizeof(T)));
    void const* const send = receives ? static_cast<void const*>(own_part_.data()) : sum;
    void* const receive = receives ? sum : nullptr;
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Ireduce(send, receive, static_cast<int>(count), mpi_type<T>(), MPI_SUM, root_node,
                          leaders_.handle().comm, &request),
              "MPI_Reduce");
    complete({&request, 1});
    if (!receives) traffic_.reduce_bytes += count * static_cast<int64_t>(sizeof(T));
  }

  Communicator comm_, node_, leaders_;  ///< leaders_: the first rank of each node (elsewhere: all the others)
  NodeWindow window_;
  std::vector<std::byte> own_part_;  ///< of a chunk, at the leader that receives the sum
  std::vector<Place> places_;
  int nodes_ = 1;
  int buffer_ = 0;  ///< of each slot's two; alternates from chunk to chunk, also across calls
  Traffic traffic_, messages_before_;
};

}  // namespace

std::unique_ptr<Collective> make_host_collective(Communicator const& comm, int64_t chunk_bytes) {
  return make_host_collective(comm, comm.split_by_node(), chunk_bytes);
}

std::unique_ptr<Collective> make_host_collective(Communicator const& comm, Communicator const& node,
                                                 int64_t chunk_bytes) {
  return std::make_unique<HostCollective>(comm, node, chunk_bytes);
}

}  // namespace fsllm
