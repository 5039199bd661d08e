// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <functional>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {

constexpr int kExitBadInput = 2;
constexpr int kExitInternal = 1;

/// An Error that every rank knows of: rank 0 speaks, all leave in an orderly way.
class AgreedError : public Error {
 public:
  using Error::Error;
};

/// Collective: runs `work` on every rank (it must not communicate); if it fails anywhere, every rank throws
/// the same AgreedError with the message of the lowest rank that failed.
void agree(Communicator const& comm, std::function<void()> const& work);

/// The frame of every program: MPI session, launch guard, one message and the exit code for whatever goes
/// wrong. An error on some ranks only ends all of them through MPI_Abort.
int run_program(int argc, char** argv, std::function<int(Communicator const&)> const& body);

/// Settings that must precede the first tensor operation (MKL's reproducible mode). First line of every main.
void prepare_process();

/// True on a rank other than 0 of a launcher, told by its environment: for output before MPI starts.
bool is_silent_rank();

}  // namespace fsllm
