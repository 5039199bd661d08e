#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: beams_test.sh FSLLM_EVAL PYTHON MODEL...
set -euo pipefail
if [[ -z $2 ]] || ! "$2" -c "import torch, transformers" 2>/dev/null; then
  echo "SKIPPED: no Python with torch, transformers (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
here=$(dirname "${BASH_SOURCE[0]}")
exec "$2" "$here/beams.py" "$1" "${@:3}"
