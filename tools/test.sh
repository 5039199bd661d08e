#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets the machine up, builds, and runs all tests; ends with ctest's own summary.
# usage: tools/test.sh [--fast] [--cuda] [--preset NAME] [-- CTEST_ARGUMENTS]
#   --fast    leaves out the tests labelled slow and the Python packages
#   --preset  dev, release (default) or asan
#   --cuda    also builds the programs with CUDA and NCCL, and runs the tests labelled gpu (they skip without a GPU)
# With CI=true warnings are errors, headers are compiled alone, the parts that read files or speak to other ranks are tested
# under sanitizers too, the style tools are installed, --cuda is on where there is a CUDA toolkit with NCCL, and a test that
# skips for want of test data fails the run where the folder of test data exists.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=release fast=0 cuda=0
while (($#)); do
  case $1 in
    --fast) fast=1 ;;
    --cuda) cuda=1 ;;
    --preset) preset=${2:?--preset needs a name}; shift ;;
    --) shift; break ;;
    -h | --help) sed -n '3,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "test: unknown option $1 (ctest's own go behind --)" >&2; exit 2 ;;
  esac
  shift
done

ci=0; [[ ${CI:-} == true ]] && ci=1
jobs=$(($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) * 2))  # most tests wait for half of their time
((jobs <= 16)) || jobs=16
set_up=() configure=() ctest=(--test-dir "build/$preset" -j "$jobs" --output-on-failure --test-output-size-passed 1000000)
((fast)) && ctest+=(-LE slow) || set_up+=(--with-python-tests --with-demo-model)
((ci)) && set_up+=(--with-style-tools --with-slurm) configure+=(-DFSLLM_WERROR=ON -DFSLLM_HEADER_CHECK=ON)
((ci)) && command -v nvcc >/dev/null && echo '#include <nccl.h>' | nvcc -E -x cu - >/dev/null 2>&1 && cuda=1
((cuda)) && set_up+=(--cuda)

bash tools/bootstrap.sh ${set_up[@]+"${set_up[@]}"}
bash tools/build.sh "$preset" ${configure[@]+"${configure[@]}"}
status=0
if ((cuda)); then
  bash tools/build.sh --target gpu_tests cuda ${configure[@]+"${configure[@]}"} -DFSLLM_HEADER_CHECK=OFF -DFSLLM_UNITY=ON
  build/cuda/bin/fsllm_hpc --version
  ctest --test-dir build/cuda -L gpu --output-on-failure --test-output-size-passed 1000000 || status=$?
fi
if ((ci)); then
  bash tools/build.sh --target sanitizer_tests asan -DFSLLM_WERROR=ON
  ctest --test-dir build/asan -j "$jobs" -R '^(core|comm|io|jinja|text|data|fed|fed_mpi)_test|^fuzz\.' --output-on-failure || status=$?
fi
ctest "${ctest[@]}" "$@" || status=$?

data=${FSLLM_TEST_DATA:-../shared/data}
# The README's and the tutorial's commands as somebody types them first, in a bare Debian; where none can be made, the
# README's in this folder.
if ((ci)) && [[ -d $data ]]; then
  bare=$(mktemp -d) walked=0
  FSLLM_TEST_DATA=$data bash tests/docs/bare_machine.sh "$bare" || walked=$?
  rm -rf --one-file-system "$bare"
  if ((walked == 77)); then
    walked=0
    python3 tests/docs/walk.py README.md --here --gsm8k "$data/datasets/gsm8k/train.jsonl" || walked=$?
  fi
  ((walked == 0)) || status=$walked
fi

log=build/$preset/Testing/Temporary/LastTest.log
if ((ci)) && [[ -d $data ]] && grep -n 'no test data' "$log"; then
  echo "test: the lines above of $log: tests skipped although the test data is in $data" >&2
  exit 1
fi
exit $status
