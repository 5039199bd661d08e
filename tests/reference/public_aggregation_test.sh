#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The closed forms of check_public_aggregation.py, and that it reports a wrong aggregation. Checkouts of public projects are
# compared by hand.
set -euo pipefail
[[ -n ${FSLLM_TEST_PYTHON:-} ]] || { echo "SKIPPED: no Python with numpy and torch (tools/bootstrap.sh --with-python-tests)"; exit 77; }
"$FSLLM_TEST_PYTHON" -c 'import numpy, torch' 2>/dev/null || { echo "SKIPPED: no numpy or torch"; exit 77; }
exec "$FSLLM_TEST_PYTHON" "$(dirname "${BASH_SOURCE[0]}")/check_public_aggregation.py" self-test
