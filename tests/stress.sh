#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The long forms of five tests that run short in CI, and one that is long.
# usage: tests/stress.sh kills [N] | faults | mutants [N] | clients [N] | billion | serve [SECONDS]   (of build/release, mutants and serve of build/asan)
#   kills    N (default 70) random kills each of training, sharding and export, continued at other rank counts
#   faults   what the machine refuses, files of others, damaged files
#   mutants  N (default 20000) mutations of every fuzz corpus, with sanitizers: no signal, none above 10 s or 1 GiB
#   billion  a step of 968 million parameters under 4.5 GiB a rank: four ranks train them, one has no room (takes 16 GiB and 6 GB of disk)
#   serve    SECONDS (default 600) of damaged requests to fsllm_serve from eight clients, with sanitizers
#   clients  N (default 10000) clients, 100 a round, 50 rounds: memory and files against those of 200 clients
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case ${1:-} in
  kills) FSLLM_KILLS=${2:-70} ctest --test-dir build/release -C Stress -R '^stress.Kills$' -V ;;
  faults) ctest --test-dir build/release -R '^e2e.(MachineFaults|FilesOfOthers|BadFiles|Files.BrokenModel|Damaged.*)$' --output-on-failure ;;
  clients) FSLLM_CLIENTS=${2:-10000} ctest --test-dir build/release -C Stress -R '^stress.Scale$' -V ;;
  billion) ctest --test-dir build/release -C Stress -R '^stress.Billion$' -V ;;
  mutants) FSLLM_MUTATIONS=${2:-20000} ctest --test-dir build/asan -C Stress -R '^stress.fuzz' -V ;;
  serve) FSLLM_SERVE_SECONDS=${2:-600} ctest --test-dir build/asan -C Stress -R '^stress.Serve$' -V ;;
  *) sed -n '4,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
