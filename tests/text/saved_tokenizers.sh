#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: saved_tokenizers.sh SAVE_FOR_TRANSFORMERS PYTHON
# Saves tokenizers with added tokens with this program and loads them with transformers.
set -euo pipefail
saver=$1 python=${2:-}
if [[ -z $python ]] || ! "$python" -c 'import transformers' 2>/dev/null; then
  echo "SKIPPED: no Python with transformers (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$saver" "$out"
"$python" "$FSLLM_SOURCE_DIR/tests/reference/check_saved_tokenizers.py" "$out"
