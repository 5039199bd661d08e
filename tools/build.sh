#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Configures and builds a preset with as many jobs as cores and memory allow (2 GB a compiler).
# usage: tools/build.sh [--target NAME] [PRESET] [CMAKE_ARGUMENTS]   (default release; FSLLM_BUILD_JOBS=N sets the jobs)
#   --target NAME   only that, e.g. programs (no tests)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=all
if [[ ${1:-} == --target ]]; then target=${2:?--target needs a name}; shift 2; fi
preset=${1:-release}
shift $(($# > 0))
jobs=$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)  # which would take the threads of a rank for the cores
memory=$(awk '/^MemAvailable/ { print int($2 / 2e6) }' /proc/meminfo)
((jobs <= memory)) || jobs=$memory
((jobs >= 1)) || jobs=1

cmake --preset "$preset" "$@"
cmake --build --preset "$preset" --target "$target" -j "${FSLLM_BUILD_JOBS:-$jobs}"

# One line puts the programs on PATH, with what Open MPI has to be told on this machine.
bin=$PWD/build/$preset/bin
if [[ -d $bin ]]; then
  printf 'export PATH="%s:$PATH"\n. "%s/tools/mpi_env.sh"\n' "$bin" "$PWD" >build/env.sh
  echo "build: the programs are in build/$preset/bin.  source build/env.sh  puts them on PATH."
fi
