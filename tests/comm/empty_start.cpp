// SPDX-License-Identifier: Apache-2.0
// The least that a program of LibTorch and MPI does: what startup_bench.py compares the start of fsllm_hpc
// with.
#include <ATen/ops/ones.h>
#include <ATen/ops/sum.h>
#include <mpi.h>

int main(int argc, char** argv) {
  MPI_Init(&argc, &argv);
  double const sum = at::ones({2, 2}).sum().item<double>();
  MPI_Barrier(MPI_COMM_WORLD);
  MPI_Finalize();
  return sum == 4 ? 0 : 1;
}
