// SPDX-License-Identifier: Apache-2.0
#include "fsllm/comm/mailbox.hpp"

#include "mpi.hpp"

namespace fsllm {
namespace {

constexpr int kTag = 3;

}  // namespace

struct Mailbox::Sent {
  std::vector<int64_t> values;
  MPI_Request request = MPI_REQUEST_NULL;
};

Mailbox::Mailbox(Communicator const& comm) : comm_(comm) {}
Mailbox::~Mailbox() = default;

void Mailbox::send(int rank, std::vector<int64_t> values) {
  std::erase_if(sent_, [](Sent& one) {
    int left = 0;
    check_mpi(MPI_Test(&one.request, &left, MPI_STATUS_IGNORE), "MPI_Test");
    return left != 0;
  });
  auto& one = sent_.emplace_back(Sent{std::move(values)});
  check_mpi(MPI_Isend(one.values.data(), static_cast<int>(one.values.size()), MPI_INT64_T, rank, kTag,
                      comm_.handle().comm, &one.request),
            "MPI_Isend");
}

std::optional<Letter> Mailbox::receive() {
  int here = 0, count = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kTag, comm_.handle().comm, &here, &status), "MPI_Iprobe");
  if (here == 0) return {};
  check_mpi(MPI_Get_count(&status, MPI_INT64_T, &count), "MPI_Get_count");
  Letter letter{status.MPI_SOURCE, std::vector<int64_t>(static_cast<size_t>(count))};
  check_mpi(MPI_Recv(letter.values.data(), count, MPI_INT64_T, letter.from, kTag, comm_.handle().comm,
                     MPI_STATUS_IGNORE),
            "MPI_Recv");
  return letter;
}

}  // namespace fsllm
