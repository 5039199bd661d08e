// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/communicator.hpp"

#include <numeric>

#include "fsllm/core/error.hpp"
#include "mpi.hpp"
#include "stall_watch.hpp"

namespace fsllm {

void check_mpi(int code, char const* what) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(fmt::format("{} failed ({}). Check the MPI installation and the other ranks' messages.", what, text));
}

Communicator::Handle::~Handle() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (owned && finalized == 0) MPI_Comm_free(&comm);
}

Communicator::Communicator(std::shared_ptr<Handle const> handle)
    : handle_(std::move(handle)), rank_(0), size_(1) {
  check_mpi(MPI_Comm_rank(handle_->comm, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(handle_->comm, &size_), "MPI_Comm_size");
}

Communicator Communicator::world() {
  return Communicator(std::make_shared<Handle const>(MPI_COMM_WORLD, false));
}

Communicator Communicator::self() {
  return Communicator(std::make_shared<Handle const>(MPI_COMM_SELF, false));
}

Communicator Communicator::split(int color, int key) const {
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(handle_->comm, color, key, &part), "MPI_Comm_split");
  return Communicator(std::make_shared<Handle const>(part, true, handle_->traffic));
}

Communicator Communicator::split_by_node() const {
  MPI_Comm node = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(handle_->comm, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node),
            "MPI_Comm_split_type");
  return Communicator(std::make_shared<Handle const>(node, true, handle_->traffic));
}

Traffic const& Communicator::traffic() const {
  return *handle_->traffic;
}

bool Communicator::meet() const {
  auto* watch = stall_watch();
  if (watch == nullptr || handle_->comm != MPI_COMM_WORLD) return false;
  watch->meet();
  return true;
}

void Communicator::barrier() const {
  if (meet()) return;
  MPI_Request barrier = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibarrier(handle_->comm, &barrier), "MPI_Barrier");
  complete({&barrier, 1});
}

void Communicator::broadcast(std::string& bytes, int root) const {
  meet();
  auto length = static_cast<int64_t>(bytes.size());
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Ibcast(&length, 1, MPI_INT64_T, root, handle_->comm, &request), "MPI_Bcast");
  complete({&request, 1});
  bytes.resize(static_cast<size_t>(length));
  if (rank_ == root && size_ > 1) handle_->traffic->broadcast_bytes += length;
  for_each_part(length, [&](int64_t offset, int count) {
    check_mpi(MPI_Ibcast(bytes.data() + offset, count, MPI_BYTE, root, handle_->comm, &request), "MPI_Bcast");
    complete({&request, 1});
  });
}

std::vector<std::string> Communicator::gather(std::string const& bytes, int root) const {
  meet();
  constexpr int kTag = 1;
  auto const length = static_cast<int64_t>(bytes.size());
  std::vector<int64_t> lengths(static_cast<size_t>(size_));
  std::vector<MPI_Request> requests(1);
  check_mpi(MPI_Igather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, root, handle_->comm,
                        requests.data()),
            "MPI_Gather");
  complete(requests);
  requests.clear();
  std::vector<std::string> all(rank_ == root ? lengths.size() : 0);
  if (rank_ != root) handle_->traffic->reduce_bytes += length;
  if (rank_ != root)
    for_each_part(length, [&](int64_t offset, int count) {
      check_mpi(MPI_Isend(bytes.data() + offset, count, MPI_BYTE, root, kTag, handle_->comm,
                          &requests.emplace_back()),
                "MPI_Isend");
    });
  for (int from = 0; from < static_cast<int>(all.size()); ++from) {
    auto& target = all[static_cast<size_t>(from)];
    if (from == root) {
      target = bytes;
      continue;
    }
    target.resize(static_cast<size_t>(lengths[static_cast<size_t>(from)]));
    for_each_part(static_cast<int64_t>(target.size()), [&](int64_t offset, int count) {
      check_mpi(MPI_Irecv(target.data() + offset, count, MPI_BYTE, from, kTag, handle_->comm,
                          &requests.emplace_back()),
                "MPI_Irecv");
    });
  }
  complete(requests);
  return all;
}

std::vector<std::string> Communicator::all_gather(std::string const& bytes) const {
  auto const length = static_cast<int64_t>(bytes.size());
  std::vector<int64_t> lengths(static_cast<size_t>(size_));
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallgather(&length, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, handle_->comm, &request),
            "MPI_Allgather");
  complete({&request, 1});
  auto const parts = gather(bytes, 0);
  std::string joined = std::accumulate(parts.begin(), parts.end(), std::string());
  broadcast(joined, 0);
  std::vector<std::string> all;
  size_t offset = 0;
  for (int64_t const part : lengths) {
    all.push_back(joined.substr(offset, static_cast<size_t>(part)));
    offset += static_cast<size_t>(part);
  }
  return all;
}

std::vector<std::string> Communicator::all_to_all(std::vector<std::string> const& to) const {
  meet();
  constexpr int kTag = 2;
  FSLLM_ASSERT(to.size() == static_cast<size_t>(size_));
  std::vector<int64_t> sent, got(to.size());
  for (auto const& bytes : to) sent.push_back(static_cast<int64_t>(bytes.size()));
  std::vector<MPI_Request> requests(1);
  check_mpi(
      MPI_Ialltoall(sent.data(), 1, MPI_INT64_T, got.data(), 1, MPI_INT64_T, handle_->comm, requests.data()),
      "MPI_Alltoall");
  complete(requests);
  requests.clear();
  std::vector<std::string> from(to.size());
  for (int rank = 0; rank < size_; ++rank) {
    auto const at = static_cast<size_t>(rank);
    from[at].resize(static_cast<size_t>(got[at]));
    for_each_part(got[at], [&](int64_t offset, int count) {
      check_mpi(MPI_Irecv(from[at].data() + offset, count, MPI_BYTE, rank, kTag, handle_->comm,
                          &requests.emplace_back()),
                "MPI_Irecv");
    });
  }
  for (int rank = 0; rank < size_; ++rank) {
    auto const at = static_cast<size_t>(rank);
    if (rank != rank_) handle_->traffic->reduce_bytes += sent[at];
    for_each_part(sent[at], [&](int64_t offset, int count) {
      check_mpi(MPI_Isend(to[at].data() + offset, count, MPI_BYTE, rank, kTag, handle_->comm,
                          &requests.emplace_back()),
                "MPI_Isend");
    });
  }
  complete(requests);
  return from;
}

int64_t Communicator::sum(int64_t value) const {
  meet();
  int64_t total = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(&value, &total, 1, MPI_INT64_T, MPI_SUM, handle_->comm, &request),
            "MPI_Allreduce");
  complete({&request, 1});
  return total;
}

int64_t Communicator::max(int64_t value) const {
  meet();
  int64_t largest = 0;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(&value, &largest, 1, MPI_INT64_T, MPI_MAX, handle_->comm, &request),
            "MPI_Allreduce");
  complete({&request, 1});
  return largest;
}

bool Communicator::all_equal(uint64_t value) const {
  meet();
  // The largest value and the largest complement meet only where all are one.
  uint64_t const mine[2] = {value, ~value};
  uint64_t largest[2] = {0, 0};
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Iallreduce(mine, largest, 2, MPI_UINT64_T, MPI_MAX, handle_->comm, &request),
            "MPI_Allreduce");
  complete({&request, 1});
  return largest[0] == ~largest[1];
}

}  // namespace fsllm
