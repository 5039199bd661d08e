#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/bootstrap.sh --check says what is missing and exits with 2.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/tools"
cp "$FSLLM_SOURCE_DIR/tools/bootstrap.sh" "$dir/tools/"

refused() {  # refused MESSAGE COMMAND...
  local message=$1 output status=0
  shift
  output=$("$@" 2>&1) || status=$?
  [[ $status == 2 ]] || { echo "exit code $status instead of 2: $*"; echo "$output"; exit 1; }
  grep -qF -- "$message" <<<"$output" || { echo "'$message' is not in:"; echo "$output"; exit 1; }
}
refused 'missing: g++' env CXX=no-such-compiler bash "$dir/tools/bootstrap.sh" --check
refused 'LibTorch 2.11.0 is not in .deps/libtorch' env -u Torch_ROOT bash "$dir/tools/bootstrap.sh" --check
refused 'it has no lib/libtorch_cpu.so' env Torch_ROOT="$dir" bash "$dir/tools/bootstrap.sh" --check
refused 'unknown option --frobnicate' bash "$dir/tools/bootstrap.sh" --frobnicate
refused 'known: 2.11.0, 2.7.1' bash "$dir/tools/bootstrap.sh" --torch 1.13

mkdir -p "$dir/torch/lib"
touch "$dir/torch/lib/libtorch_cpu.so"
Torch_ROOT=$dir/torch bash "$dir/tools/bootstrap.sh" --check
refused 'the model is not in' env Torch_ROOT="$dir/torch" bash "$dir/tools/bootstrap.sh" --check --with-demo-model
refused 'Apache Arrow 26.0.1 is not in .deps/arrow' env Torch_ROOT="$dir/torch" bash "$dir/tools/bootstrap.sh" --check --with-parquet
[[ -z $(find "$dir/.deps" -name 'work.*') ]] || { echo "work files were left in .deps"; exit 1; }
