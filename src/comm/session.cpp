// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "fsllm/comm/communicator.hpp"
#include "fsllm/comm/cores.hpp"
#include "fsllm/core/error.hpp"
#include "fsllm/core/process.hpp"
#include "mpi.hpp"
#include "stall_watch.hpp"

namespace fsllm {
namespace {

int64_t environment_number(char const* name) {
  char const* const text = std::getenv(name);
  return text == nullptr ? -1 : std::atoll(text);
}

/// How many processes the launcher started, as far as its environment says; and which variable says so.
struct Launched {
  int64_t count = 1;
  std::string by;
};

/// Slurm numbers real steps from 0; a batch script and its like have no number or one above this.
constexpr int64_t kFirstSpecialStep = 0xFFFFFFF0;

Launched launched() {
  // mpirun inside Slurm starts its daemons as a step of its own: its variables come first.
  for (char const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE"})
    if (auto const count = environment_number(name); count > 0) return {count, name};
  if (auto const rank = environment_number("PMIX_RANK"); rank > 0) return {rank + 1, "PMIX_RANK"};
  auto const step = environment_number("SLURM_STEP_ID");
  if (step < 0 || step >= kFirstSpecialStep) return {};
  for (char const* name : {"SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"})
    if (auto const count = environment_number(name); count > 0) return {count, name};
  return {};
}

/// Open MPI, started alone, forks a daemon and opens every network, which takes longer than loading a small
/// model; one process needs neither. Nor does it need a session folder, whose name all such processes of a
/// user share: one that ends removes it while another makes it, which then fails. What the user set stays.
void start_alone_quickly() {
  for (char const* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK", "SLURM_STEP_ID"})
    if (std::getenv(name) != nullptr) return;
  setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
  setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
  setenv("OMPI_MCA_pml", "ob1", 0);
  setenv("OMPI_MCA_btl", "self", 0);
}

bool any_of(auto... names) {
  return ((std::getenv(names) != nullptr) || ...);
}

bool started_by_srun() {
  auto const step = environment_number("SLURM_STEP_ID");
  return step >= 0 && step < kFirstSpecialStep && !any_of("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK");
}

/// Open MPI knows srun's ranks by PMIx (by PMI-2 where it was built for it); without it MPI_Init ends the
/// process before anybody can say why.
void check_srun() {
  if (any_of("PMIX_RANK", "PMIX_NAMESPACE") || !mpi_library_version().starts_with("Open MPI")) return;
  FSLLM_CHECK(any_of("PMI_RANK", "PMI_FD"),
              "srun has started this rank without PMIx (Open MPI needs it to find the others). Write srun "
              "--mpi=pmix, "
              "or start with mpirun.");
  if (environment_number("SLURM_PROCID") <= 0)
    std::fputs(
        "srun has started the ranks with PMI, which few builds of Open MPI know. Should MPI_Init fail now: "
        "write srun --mpi=pmix.\n",
        stderr);
}

/// Where all addresses are exchanged in MPI_Init, one start of twenty (Open MPI 4.1.4, srun of Slurm 22.05,
/// TCP) ends in a crash there: a rank gets a message before it can take any. None of 120 did where they are
/// fetched when they are needed. What the user set stays.
void fetch_addresses_when_needed() {
  setenv("OMPI_MCA_pmix_base_collect_data", "0", 0);
}

/// 0: started alone. A process whose parent ends gets another one.
pid_t launcher = 0;

}  // namespace

MpiSession::MpiSession(int& argc, char**& argv) {
  if (started_by_srun()) {
    check_srun();
    fetch_addresses_when_needed();
  }
  start_alone_quickly();
  if (!launched().by.empty()) launcher = ::getppid();
  int provided = MPI_THREAD_SINGLE;
  // With a GPU, LibTorch runs backward passes, and so the exchanges of a group, on a thread of its own.
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_set_errhandler(MPI_COMM_SELF, MPI_ERRORS_RETURN);
  FSLLM_CHECK(provided >= MPI_THREAD_FUNNELED,
              "MPI offers thread level {} only (MPI_THREAD_FUNNELED is needed). Use an MPI library built "
              "with threads.",
              provided);
  start_stall_watch();
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > 0) return;
  end_stall_watch();
  MPI_Finalize();
}

void abort_all_ranks(int exit_code) {
  std::fflush(nullptr);
  int started = 0, ended = 0;
  MPI_Initialized(&started);
  MPI_Finalized(&ended);
  if (started != 0 && ended == 0) MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

void check_launch() {
  if (Communicator::world().size() > 1) return;
  auto const [count, by] = launched();
  FSLLM_CHECK(count <= 1,
              "this process is alone although {} were started ({} says so; this program uses {}). Start it "
              "with mpirun of "
              "that MPI, or under Slurm with: srun --mpi=pmix.",
              count, by, mpi_library_version());
}

bool launcher_has_ended() {
  return launcher != 0 && ::getppid() != launcher;
}

std::string mpi_library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  std::string const version = text;  // some count a final zero into the length
  return version.substr(0, version.find_last_not_of(" \n", version.find('\n')) + 1);
}

std::string placement_table(Communicator const& world) {
  auto const node = world.split_by_node();
  auto const rows = world.all_gather(fmt::format("{:<24} {:>10}  {}", host_name(), node.rank(), core_list()));
  std::string table = fmt::format("{:>5}  {:<24} {:>10}  {}", "rank", "host", "local rank", "cores");
  for (size_t rank = 0; rank < rows.size(); ++rank) table += fmt::format("\n{:>5}  {}", rank, rows[rank]);
  return table;
}

}  // namespace fsllm
