#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy (.clang-tidy) on our sources: by default those that differ from the branch's upstream.
# usage: tools/tidy.sh [--build DIR] [--all | FILE...]   (DIR is configured, default build/release; exit 77 without the tool)
# --all reads them in the batches of FSLLM_UNITY: LibTorch's headers, which take nearly all of the time, once a batch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/release
[[ ${1:-} != --build ]] || { build=$2; shift 2; }
clang_tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
[[ -n $clang_tidy ]] || { echo "SKIPPED: no clang-tidy (tools/bootstrap.sh --with-style-tools installs it)"; exit 77; }
[[ -f $build/compile_commands.json ]] || { echo "no $build/compile_commands.json: configure first, or give --build DIR" >&2; exit 2; }

database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
all=0 options=()
configure() { cmake --preset release -B "$database" -DFSLLM_TESTS=OFF -DFSLLM_HEADER_CHECK=OFF "$@" >/dev/null; }
if [[ ${1:-} == --all ]]; then
  all=1
  options=(--header-filter="$PWD/(include|src|tools)/.*" --checks=-bugprone-suspicious-include)
  configure -DFSLLM_UNITY=ON
  mapfile -t files < <(sed -nE "s|^ *\"file\": \"((${database}\|$PWD/(src\|tools))/[^\"]*)\".*|\1|p" "$database/compile_commands.json" | sort -u)
elif (($#)); then
  files=("$@")
else
  base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse HEAD)
  mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' 'tools/*.cpp')
fi
((${#files[@]})) || { echo "tidy: no source differs"; exit 0; }
if ((!all)); then
  if grep -q '/Unity/unity_' "$build/compile_commands.json"; then configure -DFSLLM_UNITY=OFF  # no command names a source of its own
  else cp "$build/compile_commands.json" "$database"; fi
fi
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${JOBS:-2}" "$clang_tidy" --quiet ${options[@]+"${options[@]}"} -p "$database" 2> >(grep -v 'warnings generated' >&2)
kinds=(files batches)
echo "tidy: ${#files[@]} ${kinds[all]} are clean"
