// SPDX-License-Identifier: Apache-2.0
#include "host_exchange.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "fsllm/core/error.hpp"
#include "mpi.hpp"

namespace fsllm {
namespace {

constexpr int kExchangeTag = 3;

/// Bytes that a rank receives at once to add them: larger tensors are cut.
constexpr int64_t kReceivedAtOnce = int64_t{64} << 20;

/// Messages under way.
class Messages {
 public:
  Messages(Communicator const& comm, int64_t& bytes) : comm_(comm), bytes_(bytes) {}
  ~Messages() {
    // Only where an exception unwinds: their memory must outlive them.
    for (auto& request : requests_)
      if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
  }
  Messages(Messages const&) = delete;
  Messages& operator=(Messages const&) = delete;

  void send(at::Tensor const& part, int rank) {
    auto const* from = static_cast<std::byte const*>(part.const_data_ptr());
    auto const size = static_cast<int64_t>(part.nbytes());
    bytes_ += size;
    for_each_part(size, [&](int64_t offset, int count) {
      check_mpi(MPI_Isend(from + offset, count, MPI_BYTE, rank, kExchangeTag, comm_.handle().comm,
                          &requests_.emplace_back()),
                "MPI_Isend");
    });
  }
  /// Writes past autograd's count of versions: what a graph has saved of the tensor is what comes now.
  void receive(at::Tensor const& part, int rank) {
    auto* to = static_cast<std::byte*>(part.data_ptr());
    for_each_part(static_cast<int64_t>(part.nbytes()), [&](int64_t offset, int count) {
      check_mpi(MPI_Irecv(to + offset, count, MPI_BYTE, rank, kExchangeTag, comm_.handle().comm,
                          &requests_.emplace_back()),
                "MPI_Irecv");
    });
  }
  void finish() {
    complete(requests_);
    requests_.clear();
  }

 private:
  Communicator const& comm_;
  int64_t& bytes_;
  std::vector<MPI_Request> requests_;
};

/// The rank-th of the equal parts of a one-dimensional tensor.
at::Tensor part_of(at::Tensor const& whole, int rank, int ranks) {
  auto const size = whole.size(0) / ranks;
  return whole.narrow(0, rank * size, size);
}

std::vector<at::Tensor> on_host(std::vector<at::Tensor> const& tensors) {
  std::vector<at::Tensor> host;
  for (auto const& tensor : tensors) host.push_back(tensor.detach().cpu());
  return host;
}

class AllGather : public Exchange {
 public:
  AllGather(Communicator const& comm, std::vector<at::Tensor> const& whole, int64_t& bytes)
      : whole_(whole), host_(on_host(whole)), messages_(comm, bytes) {
    int const ranks = comm.size();
    for (auto const& tensor : host_)
      for (int rank = 0; rank < ranks; ++rank)
        if (rank != comm.rank()) messages_.receive(part_of(tensor, rank, ranks), rank);
    for (auto const& tensor : host_)
      for (int rank = 0; rank < ranks; ++rank)
        if (rank != comm.rank()) messages_.send(part_of(tensor, comm.rank(), ranks), rank);
  }
  void finish() override {
    messages_.finish();
    for (size_t i = 0; i < whole_.size(); ++i)
      if (!whole_[i].is_cpu()) whole_[i].detach().copy_(host_[i]);
  }

 private:
  std::vector<at::Tensor> whole_, host_;
  Messages messages_;
};

class ReduceScatter : public Exchange {
 public:
  ReduceScatter(Communicator const& comm, std::vector<at::Tensor> const& whole,
                std::vector<at::Tensor> const& sums, int64_t& bytes)
      : comm_(comm), host_(on_host(whole)), sums_(sums), messages_(comm, bytes) {
    int const ranks = comm_.size();
    for (auto const& tensor : host_) received_.push_back(receive(tensor, 0, tensor.size(0) / ranks));
  }
  void finish() override {
    messages_.finish();
    for (size_t i = 0; i < host_.size(); ++i) add(i, 0, received_[i]);
    received_.clear();
    host_.clear();
  }

  /// The same for one tensor, a slice of all parts at a time.
  void in_slices(int64_t slice) {
    int64_t const size = host_.front().size(0) / comm_.size();
    for (int64_t begin = 0; begin < size; begin += slice) {
      auto const parts = receive(host_.front(), begin, std::min(slice, size - begin));
      messages_.finish();
      add(0, begin, parts);
    }
    host_.clear();
  }
  /// Of one tensor, with nothing under way yet.
  ReduceScatter(Communicator const& comm, at::Tensor const& whole, at::Tensor const& sum, int64_t& bytes)
      : comm_(comm), host_(on_host({whole})), sums_{sum}, messages_(comm, bytes) {}

 private:
  /// The other ranks' values of [begin, begin + count) of this rank's part, in the order of ranks, when
  /// messages_ has finished; they get theirs.
  std::vector<at::Tensor> receive(at::Tensor const& tensor, int64_t begin, int64_t count) {
    int const ranks = comm_.size();
    std::vector<at::Tensor> parts;
    for (int rank = 0; rank < ranks; ++rank) {
      auto const mine = part_of(tensor, rank, ranks).narrow(0, begin, count);
      parts.push_back(rank == comm_.rank() ? mine : at::empty({count}, tensor.options()));
    }
    for (int rank = 0; rank < ranks; ++rank)
      if (rank != comm_.rank()) messages_.receive(parts[static_cast<size_t>(rank)], rank);
    for (int rank = 0; rank < ranks; ++rank)
      if (rank != comm_.rank()) messages_.send(part_of(tensor, rank, ranks).narrow(0, begin, count), rank);
    return parts;
  }

  void add(size_t i, int64_t begin, std::vector<at::Tensor> const& parts) {
    auto const type = host_[i].scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    auto const first = parts.front().to(type, /*non_blocking=*/false, /*copy=*/true);
    for (size_t rank = 1; rank < parts.size(); ++rank) first.add_(parts[rank]);
    sums_[i].narrow(0, begin, first.size(0)).add_(first.to(sums_[i].device()));
  }

  Communicator const& comm_;
  std::vector<at::Tensor> host_, sums_;
  Messages messages_;
  std::vector<std::vector<at::Tensor>> received_;
};

struct Nothing : Exchange {
  void finish() override {}
};

}  // namespace

std::unique_ptr<Exchange> host_all_gather(Communicator const& comm, std::vector<at::Tensor> const& whole,
                                          int64_t& bytes) {
  if (comm.size() == 1) return std::make_unique<Nothing>();
  return std::make_unique<AllGather>(comm, whole, bytes);
}

std::unique_ptr<Exchange> host_reduce_scatter(Communicator const& comm, std::vector<at::Tensor> const& whole,
                                              std::vector<at::Tensor> const& sums, int64_t& bytes) {
  std::vector<at::Tensor> small, small_sums;
  for (size_t i = 0; i < whole.size(); ++i) {
    auto const received = static_cast<int64_t>(whole[i].nbytes());
    if (received <= kReceivedAtOnce) {
      small.push_back(whole[i]);
      small_sums.push_back(sums[i]);
      continue;
    }
    ReduceScatter(comm, whole[i], sums[i], bytes)
        .in_slices(kReceivedAtOnce / comm.size() / static_cast<int64_t>(whole[i].element_size()));
  }
  return std::make_unique<ReduceScatter>(comm, small, small_sums, bytes);
}

}  // namespace fsllm
