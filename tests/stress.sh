#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The long forms of five tests that run short in CI, and two that are long.
# usage: tests/stress.sh kills [N] | faults | mutants [N] | clients [N] | billion | serve [SECONDS] | mpi [NAME]   (of build/release, mutants and serve of build/asan)
#   kills    N (default 70) random kills each of training, sharding and export, continued at other rank counts
#   faults   what the machine refuses, files of others, damaged files
#   mutants  N (default 20000) mutations of every fuzz corpus, with sanitizers: no signal, none above 10 s or 1 GiB
#   billion  a step of 968 million parameters under 4.5 GiB a rank: four ranks train them, one has no room (takes 16 GiB and 6 GB of disk)
#   serve    SECONDS (default 600) of damaged requests to fsllm_serve from eight clients, with sanitizers
#   clients  N (default 10000) clients, 100 a round, 50 rounds: memory and files against those of 200 clients
#   mpi      the tests labelled mpi with the MPI of mpicc, or of mpicc.NAME (as mpich on Debian, beside Open MPI), in build/mpi[.NAME]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  kills) FSLLM_KILLS=${2:-70} ctest --test-dir build/release -C Stress -R '^stress.Kills$' -V ;;
  faults) ctest --test-dir build/release -R '^e2e.(MachineFaults|FilesOfOthers|BadFiles|Files.BrokenModel|Damaged.*)$' --output-on-failure ;;
  clients) FSLLM_CLIENTS=${2:-10000} ctest --test-dir build/release -C Stress -R '^stress.Scale$' -V ;;
  billion) ctest --test-dir build/release -C Stress -R '^stress.Billion$' -V ;;
  mutants) FSLLM_MUTATIONS=${2:-20000} ctest --test-dir build/asan -C Stress -R '^stress.fuzz' -V ;;
  serve) FSLLM_SERVE_SECONDS=${2:-600} ctest --test-dir build/asan -C Stress -R '^stress.Serve$' -V ;;
  mpi)
    build=build/mpi${2:+.$2}
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DFSLLM_UNITY=ON -DFSLLM_TEST_PATIENCE=10 -DMPI_C_COMPILER="mpicc${2:+.$2}" \
      -DMPI_CXX_COMPILER="mpicxx${2:+.$2}" -DMPIEXEC_EXECUTABLE="$(command -v "mpiexec${2:+.$2}")"
    cmake --build "$build" --target comm_test fed_mpi_test train_mpi_test fsllm_hpc -j "${FSLLM_BUILD_JOBS:-2}"
    ctest --test-dir "$build" -L '^mpi$' --output-on-failure  # ranks of some MPIs spin while they wait: patience
    ;;
  *) sed -n '4,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
