#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: walk_test.sh PAGE.md BIN PYTHON
set -euo pipefail
model=${FSLLM_TEST_DATA:-}/models/stories260K
if [[ ! -d $model ]]; then
  echo "SKIPPED: no $model (set FSLLM_TEST_DATA)"
  exit 77
fi
if [[ -z $3 ]] || ! "$3" -c "import peft, transformers" 2>/dev/null; then
  echo "SKIPPED: no Python with peft, transformers (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
exec "$3" "$(dirname "${BASH_SOURCE[0]}")/walk.py" "$1" --bin "$2" --model "$model"
