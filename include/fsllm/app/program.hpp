// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <exception>
#include <functional>
#include <string>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/core/error.hpp"

namespace fsllm {

constexpr int kExitBadInput = 2;
constexpr int kExitInternal = 1;
constexpr int kExitStopped = 85;  ///< by a signal, with a checkpoint: to be continued
constexpr int kExitSignal = 143;  ///< by a signal, with nothing to continue from

/// What the user is told of an exception, and the exit code. What the machine refuses (memory, descriptors, a
/// folder) is nobody's mistake in the program: only the rest is internal.
struct Failure {
  std::string message;
  int exit_code = kExitBadInput;
};
Failure failure_of(std::exception const& error);

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
/// The same for a program called `name` that runs on one rank: more are an Error.
int run_program_alone(int argc, char** argv, std::string const& name,
                      std::function<int(Communicator const&)> const& body);

/// Settings that must precede the first tensor operation (MKL's reproducible mode). First line of every main.
void prepare_process();

/// True on a rank other than 0 of a launcher, told by its environment: for output before MPI starts.
bool is_silent_rank();
void print_error(std::string const& message);
/// An error that every rank finds before MPI has started: rank 0 says it. The others wait until it has, for a
/// launcher ends all ranks when the first one exits.
void print_error_once(std::string const& message);

}  // namespace fsllm
