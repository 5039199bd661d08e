#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What a machine with a GPU is asked first, in parts of at most nine minutes: prints tables in Markdown, and appends them and the
# programs' words to a folder. Without a GPU, its parts are named as skipped, and what needs none runs on the CPU. docs/GPU.md.
# usage: tools/gpu_day.sh [--part NAME]... [--bin DIR] [--out DIR] [--work DIR]
#   --part   tests numbers speed host nccl zero peer; default: all
#   --bin    the programs: a bundle's bin (the default inside a bundle), or build/cuda/bin, or build/release/bin
#   --out    where the log goes: $OUT, or ./gpu_day
#   --work   for models of up to 16 GB and runs: a folder of its own in the temporary folder, kept for the next part
# FSLLM_PYTHON: a Python (default python3); Torch_ROOT: a LibTorch (default: that Python's torch, or .deps/libtorch/torch).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ ${1:-} == -h || ${1:-} == --help ]]; then sed -n '3,10s/^# \{0,1\}//p' "$0"; exit 0; fi

python=${FSLLM_PYTHON:-$(command -v python3 || true)}
[[ -n $python ]] || { echo "gpu_day: no python3 here. Name one with FSLLM_PYTHON." >&2; exit 2; }
if [[ -z ${Torch_ROOT:-} ]]; then
  Torch_ROOT=$("$python" -c 'import importlib.util as u; s = u.find_spec("torch"); print(s.submodule_search_locations[0] if s else "")')
  if [[ -z $Torch_ROOT && -d $root/.deps/libtorch/torch ]]; then Torch_ROOT=$root/.deps/libtorch/torch; fi
  [[ -z $Torch_ROOT ]] || export Torch_ROOT
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$python" -u "$root/tools/gpu_day/main.py" --root "$root" "$@"
