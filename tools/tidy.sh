#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# clang-tidy (.clang-tidy) on our sources: by default those that differ from the branch's upstream.
# usage: tools/tidy.sh [--build DIR] [--all | FILE...]   (DIR is configured, default build/release; exit 77 without the tool)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

build=build/release
[[ ${1:-} != --build ]] || { build=$2; shift 2; }
clang_tidy=$(command -v clang-tidy-14 || command -v clang-tidy || true)
[[ -n $clang_tidy ]] || { echo "SKIPPED: no clang-tidy (tools/bootstrap.sh --with-style-tools installs it)"; exit 77; }
[[ -f $build/compile_commands.json ]] || { echo "no $build/compile_commands.json: configure first, or give --build DIR" >&2; exit 2; }

database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
commands=$build/compile_commands.json
if grep -q '/Unity/unity_' "$commands"; then  # FSLLM_UNITY: no command names a source of its own
  cmake --preset release -B "$database" -DFSLLM_UNITY=OFF -DFSLLM_TESTS=OFF >/dev/null
  commands=$database/compile_commands.json
fi
if [[ ${1:-} == --all ]]; then
  mapfile -t files < <(sed -nE "s|^ *\"file\": \"$PWD/((src\|tools)/[^\"]*\.cpp)\".*|\1|p" "$commands" | sort -u)
elif (($#)); then
  files=("$@")
else
  base=$(git merge-base HEAD '@{upstream}' 2>/dev/null || git rev-parse HEAD)
  mapfile -t files < <(git diff --name-only --diff-filter=d "$base" -- 'src/*.cpp' 'tools/*.cpp')
fi
((${#files[@]})) || { echo "tidy: no source differs"; exit 0; }
[[ $commands == "$database/compile_commands.json" ]] || cp "$commands" "$database/compile_commands.json"
printf '%s\0' "${files[@]}" | xargs -0 -n 1 -P "${JOBS:-2}" "$clang_tidy" --quiet -p "$database" 2> >(grep -v 'warnings generated' >&2)
echo "tidy: ${#files[@]} files are clean"
