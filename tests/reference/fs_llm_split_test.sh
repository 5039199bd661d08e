#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# usage: fs_llm_split_test.sh BIN_DIR
# The split of compat.fsllm is the installed numpy's permutation.
set -euo pipefail
[[ -n ${FSLLM_TEST_PYTHON:-} ]] || { echo "SKIPPED: no Python with numpy and h5py (tools/bootstrap.sh --with-python-tests)"; exit 77; }
"$FSLLM_TEST_PYTHON" -c 'import numpy, h5py' 2>/dev/null || { echo "SKIPPED: no numpy or h5py"; exit 77; }
exec "$FSLLM_TEST_PYTHON" "$(dirname "${BASH_SOURCE[0]}")/check_fs_llm_split.py" "$1"
