#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The long forms of three tests that run short in CI.
# usage: tests/stress.sh kills [N] | faults | mutants [N]   (of build/release, mutants of build/asan)
#   kills    N (default 70) random kills each of training, sharding and export, continued at other rank counts
#   faults   what the machine refuses, files of others, damaged files
#   mutants  N (default 20000) mutations of every fuzz corpus, with sanitizers: no signal, none above 10 s or 1 GiB
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  kills) FSLLM_KILLS=${2:-70} ctest --test-dir build/release -R '^e2e.Kills$' --timeout 7200 -V ;;
  faults) ctest --test-dir build/release -R '^e2e.(MachineFaults|FilesOfOthers|BadFiles|Files.BrokenModel|Damaged.*)$' --output-on-failure ;;
  mutants)
    for program in build/asan/bin/fuzz_*; do
      name=${program##*/fuzz_} corpus=(tests/fuzz/corpus/"${program##*/fuzz_}"/*)
      echo "== $name"
      FSLLM_SOURCE_DIR=$PWD ASAN_OPTIONS=detect_leaks=0:intercept_memmem=0:allocator_may_return_null=1:max_allocation_size_mb=1024:quarantine_size_mb=16 \
        "$program" "tests/fuzz/corpus/$name" $(((${2:-20000} + ${#corpus[@]} - 1) / ${#corpus[@]}))
    done ;;
  *) sed -n '4,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
