// SPDX-License-Identifier: Apache-2.0
// Sum and broadcast of one large buffer: ours against MPI's own on the same ranks in the same run, and
// against memcpy as the bound of the memory. Run: mpirun -np 4 comm_bench [MiB a rank]
#include <ATen/ops/full.h>
#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>

#include "fsllm/comm/collective.hpp"
#include "fsllm/comm/fixed_point.hpp"

namespace fsllm {
namespace {

/// The best of `repeats` calls, each timed as that of the slowest rank, in seconds.
double time_of(std::function<void()> const& call, int repeats = 9) {
  double best = HUGE_VAL;
  for (int i = 0; i < repeats; ++i) {
    MPI_Barrier(MPI_COMM_WORLD);
    double const start = MPI_Wtime();
    call();
    double mine = MPI_Wtime() - start, slowest = 0;
    MPI_Allreduce(&mine, &slowest, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    best = std::min(best, slowest);
  }
  return best;
}

void print_row(bool prints, char const* what, double seconds, double bytes, double mpi, double copy) {
  if (!prints) return;
  fmt::print("{:<34} {:>9.2f} ms {:>8.2f} GB/s", what, 1e3 * seconds, 1e-9 * bytes / seconds);
  if (mpi > 0) fmt::print("   {:>6.2f} x faster than MPI's", mpi / seconds);
  if (copy > 0) fmt::print("   {:>6.2f} x the time of memcpy", seconds / copy);
  fmt::print("\n");
}

void run(int64_t mebibytes, int64_t window_kibibytes) {
  auto const world = Communicator::world();
  bool const prints = world.rank() == 0;
  int64_t const count = (mebibytes << 20) / 4;
  double const bytes = 4.0 * static_cast<double>(count);
  auto const collective = make_host_collective(world, window_kibibytes << 10);
  TensorMap map{{"w", at::full({count}, 1.0, at::kFloat)}};
  auto* const data = map.at("w").mutable_data_ptr<float>();
  std::vector<float> other(static_cast<size_t>(count));
  std::vector<int64_t> integers(static_cast<size_t>(count / 2), 1), integer_sum(integers.size());

  if (prints) fmt::print("{} ranks, {} MiB a rank, {}\n", world.size(), mebibytes, mpi_library_version());
  double const copy = time_of([&] { std::memcpy(other.data(), data, static_cast<size_t>(bytes)); });
  print_row(prints, "memcpy on every rank", copy, bytes, 0, 0);

  double const all = time_of([&] {
    MPI_Allreduce(data, other.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
  });
  print_row(prints, "MPI_Allreduce, float", all, bytes, 0, copy);
  double const to_root = time_of([&] {
    MPI_Reduce(data, other.data(), static_cast<int>(count), MPI_FLOAT, MPI_SUM, 0, MPI_COMM_WORLD);
  });
  print_row(prints, "MPI_Reduce, float", to_root, bytes, 0, copy);
  double const ours = time_of([&] { collective->reduce_sum(map, 0); });
  print_row(prints, "reduce_sum, float (MPI_Reduce)", ours, bytes, to_root, copy);
  double const both = time_of([&] {
    collective->reduce_sum(map, 0);
    collective->broadcast(map, 0);
  });
  print_row(prints, "reduce_sum + broadcast (Allreduce)", both, bytes, all, copy);

  double const integer = time_of([&] {
    MPI_Reduce(integers.data(), integer_sum.data(), static_cast<int>(integers.size()), MPI_INT64_T, MPI_SUM,
               0, MPI_COMM_WORLD);
  });
  print_row(prints, "reduce_sum, int64 (MPI_Reduce)", time_of([&] { collective->reduce_sum(integers, 0); }),
            bytes, integer, copy);
  double const bcast =
      time_of([&] { MPI_Bcast(data, static_cast<int>(count), MPI_FLOAT, 0, MPI_COMM_WORLD); });
  print_row(prints, "MPI_Bcast", bcast, bytes, 0, copy);
  print_row(prints, "broadcast (MPI_Bcast)", time_of([&] { collective->broadcast(map, 0); }), bytes, bcast,
            copy);

  FixedPointSum sum(map, 48);
  TensorMap const update{{"w", at::full({count}, 1e-3, at::kFloat)}};
  print_row(prints, "FixedPointSum::add", time_of([&] { sum.add(update, 0.01, "client"); }), bytes, 0, copy);
}

}  // namespace
}  // namespace fsllm

int main(int argc, char** argv) {
  fsllm::MpiSession session(argc, argv);
  fsllm::run(argc > 1 ? std::atoll(argv[1]) : 64, argc > 2 ? std::atoll(argv[2]) : 1024);
}
