#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/check_layers.sh names each kind of violation with file and line.
set -euo pipefail
checker=$FSLLM_SOURCE_DIR/tools/check_layers.sh
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir"/{src/core,src/train,include/fsllm/strange,include/fsllm/core}
licence='// SPDX-License-Identifier: Apache-2.0'

printf '%s\n#include "fsllm/core/error.hpp"\n' "$licence" >"$dir/src/core/good.cpp"
bash "$checker" "$dir" || { echo "a clean tree was refused"; exit 1; }

printf '%s\n#include "fsllm/fed/round.hpp"\n#include <mpi.h>\n' "$licence" >"$dir/src/core/bad.cpp"
printf '%s\n#include "fsllm/comm/collective.hpp"\n#include "fsllm/comm/communicator.hpp"\n#include <torch/torch.h>\n' \
  "$licence" >"$dir/src/train/bad.cpp"
printf '#include <ATen/ATen.h>\n' >"$dir/include/fsllm/strange/bad.hpp"
{ echo "$licence"; printf '// x\n%.0s' {1..400}; } >"$dir/include/fsllm/core/long.hpp"

if output=$(bash "$checker" "$dir"); then echo "violations were accepted"; exit 1; fi
echo "$output"
expect() { grep -qF "$1" <<<"$output" || { echo "not reported: $1"; exit 1; }; }
expect 'src/core/bad.cpp:2: core must not include fed'
expect 'src/core/bad.cpp:3: mpi.h has no place here'
expect 'src/train/bad.cpp:3: train must not include comm'
expect 'src/train/bad.cpp:4: torch/torch.h has no place here'
expect 'include/fsllm/strange/bad.hpp:1: module strange has no row'
expect 'include/fsllm/strange/bad.hpp:1: heavy header in a header'
expect "include/fsllm/strange/bad.hpp:1: no line 'SPDX"
expect 'include/fsllm/core/long.hpp:400: longer than 400 lines'
[[ $(wc -l <<<"$output") == 8 ]] || { echo "more than the eight violations was reported"; exit 1; }
