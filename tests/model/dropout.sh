#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: dropout.sh DROPOUT_LOGITS PYTHON
# Models that drop in training drop the same things as in transformers.
set -euo pipefail
program=$1 python=${2:-}
if [[ -z $python ]] || ! "$python" -c 'import transformers, torch' 2>/dev/null; then
  echo "SKIPPED: no Python with transformers (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$program" "$out"
HF_HUB_OFFLINE=1 "$python" "$FSLLM_SOURCE_DIR/tests/reference/check_dropout.py" "$out"
