// SPDX-License-Identifier: Apache-2.0
#include "fsllm/app/program.hpp"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "fsllm/app/command_line.hpp"
#include "fsllm/core/allocator.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/interrupt.hpp"
#include "fsllm/core/log.hpp"
#include "fsllm/core/matmul.hpp"

namespace fsllm {
namespace {

/// Ends the run after a failure that other ranks do not know of. The lowest rank that failed speaks: the
/// others wait a moment, in which its abort reaches them.
int end_alone(Communicator const& world, std::string const& message, int exit_code) {
  std::this_thread::sleep_for(std::chrono::milliseconds(100 * std::min(world.rank(), 20)));
  print_error(world.size() > 1 ? fmt::format("[rank {}] {}", world.rank(), message) : message);
  if (world.size() > 1) abort_all_ranks(exit_code);
  return exit_code;
}

/// As many files as the administrator allows: MPI alone needs some twenty.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

void check_descriptor_limit() {
  constexpr rlim_t kLeast = 64;
  rlimit limit{};
  FSLLM_CHECK(::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kLeast,
              "too few file descriptors (ulimit -n is {}, {} are needed). Raise the limit.", limit.rlim_cur,
              kLeast);
}

}  // namespace

void agree(Communicator const& comm, std::function<void()> const& work) {
  std::string message;
  try {
    work();
  } catch (AgreedError const&) {
    throw;
  } catch (std::exception const& error) {
    auto const failure = failure_of(error);
    if (failure.exit_code != kExitBadInput) throw;
    message = failure.message;
  }
  for (auto const& said : comm.all_gather(message))
    if (!said.empty()) throw AgreedError(said);
}

int run_program(int argc, char** argv, std::function<int(Communicator const&)> const& body) {
  try {
    check_descriptor_limit();
    MpiSession session(argc, argv);
    auto const world = Communicator::world();
    try {
      check_launch();
      start_log(world.rank(), world.size(), verbosity());
      return body(world);
    } catch (AgreedError const& error) {
      if (world.rank() == 0) print_error(error.what());
      world.barrier();
      return kExitBadInput;
    } catch (std::exception const& error) {
      auto const [message, code] = failure_of(error);
      return end_alone(world, message, code);
    }
  } catch (std::exception const& error) {
    auto const [message, code] = failure_of(error);
    print_error_once(message);
    return code;
  }
}

int run_program_alone(int argc, char** argv, std::string const& name,
                      std::function<int(Communicator const&)> const& body) {
  return run_program(argc, argv, [&](Communicator const& world) {
    int code = 0;
    agree(world, [&] {
      FSLLM_CHECK(world.size() == 1, "{} on {} ranks (it is a program for one). Start it without mpirun.",
                  name, world.size());
      code = body(world);
    });
    return code;
  });
}

void prepare_process() {
  raise_descriptor_limit();
  ignore_write_signals();
  // Without it MKL's GEMM changes bits with the alignment of its operands.
  setenv("MKL_CBWR", "AUTO,STRICT", 0);
  keep_freed_memory();
  use_matmul_kernels();
}

ProgramStart start_program(Program const& program, int argc, char const* const* argv) {
  prepare_process();
  return answer_command_line(program, argc, argv,
                             [] { return fmt::format("MPI: {}\n", mpi_library_version()); });
}

}  // namespace fsllm
