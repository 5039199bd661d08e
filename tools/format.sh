#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Formats the C++ sources with clang-format 14 (its output differs between versions).
# usage: tools/format.sh [--check] [FILE...]   (default: all; --check only tells, exit 1 if any differs, 77 without the tool)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mode=(-i)
if [[ ${1:-} == --check ]]; then
  mode=(--dry-run --Werror)
  shift
fi
clang_format=
for candidate in clang-format-14 clang-format .deps/venv/bin/clang-format; do
  if command -v "$candidate" >/dev/null && [[ $("$candidate" --version) == *"version 14."* ]]; then
    clang_format=$candidate
    break
  fi
done
if [[ -z $clang_format ]]; then
  echo "SKIPPED: no clang-format 14 (tools/bootstrap.sh --with-style-tools installs it; so does pip install clang-format==14.0.6)"
  exit 77
fi
(($#)) || { mapfile -t all < <(git ls-files -co --exclude-standard -- '*.cpp' '*.hpp' 2>/dev/null ||
  find include src tests tools -name '*.[ch]pp'); set -- "${all[@]}"; }
if ! "$clang_format" "${mode[@]}" "$@"; then
  echo "Run tools/format.sh to format them."
  exit 1
fi
