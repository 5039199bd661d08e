#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: check_with_python.sh PROGRAM PYTHON "MODULE, MODULE" CHECK.py [ARGUMENT...]
# PROGRAM OUT writes into a new folder OUT what CHECK.py ARGUMENT... OUT compares with these Python packages.
set -euo pipefail
program=$1 python=$2 modules=$3 check=$4
shift 4
if [[ -z $python ]] || ! "$python" -c "import $modules" 2>/dev/null; then
  echo "SKIPPED: no Python with $modules (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$program" "$out"
HF_HUB_OFFLINE=1 "$python" "$check" "$@" "$out"
