#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The expected texts of chat templates are what the installed transformers gives.
set -euo pipefail
[[ -n ${FSLLM_TEST_PYTHON:-} ]] || { echo "SKIPPED: no Python with transformers (tools/bootstrap.sh --with-python-tests)"; exit 77; }
"$FSLLM_TEST_PYTHON" -c 'import transformers, jinja2' 2>/dev/null || { echo "SKIPPED: no transformers or jinja2"; exit 77; }
exec "$FSLLM_TEST_PYTHON" "$(dirname "${BASH_SOURCE[0]}")/make_chat_goldens.py" --check
