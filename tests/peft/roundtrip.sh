#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: roundtrip.sh EXPORT_FOR_PEFT PYTHON
# Exports adapters and merged models with this program and loads them with transformers + peft.
set -euo pipefail
exporter=$1 python=${2:-}
if [[ -z $python ]] || ! "$python" -c 'import transformers, peft, torch' 2>/dev/null; then
  echo "SKIPPED: no Python with transformers and peft (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
"$exporter" "$out"
HF_HUB_OFFLINE=1 "$python" "$FSLLM_SOURCE_DIR/tests/reference/check_peft_roundtrip.py" "$FSLLM_SOURCE_DIR/tests/reference" "$out"
