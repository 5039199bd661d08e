#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: examples_test.sh BIN PYTHON
set -euo pipefail
if [[ ! -d ${FSLLM_TEST_DATA:-}/models/stories260K ]]; then
  echo "SKIPPED: no models/stories260K (set FSLLM_TEST_DATA)"
  exit 77
fi
if [[ -z $2 ]] || ! "$2" -c "import jsonschema, yaml" 2>/dev/null; then
  echo "SKIPPED: no Python with jsonschema, yaml (set -DFSLLM_TEST_PYTHON=/path/to/python)"
  exit 77
fi
exec "$2" "$(dirname "${BASH_SOURCE[0]}")/check_examples.py" --bin "$1" --data "$FSLLM_TEST_DATA"
