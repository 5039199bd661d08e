#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The federated algorithm that CONTRIBUTING.md shows is the one that tests/fed compiles and tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
diff <(sed -n '/src\/fed\/signsgd.cpp/,/^   ```$/p' CONTRIBUTING.md | sed '1,/```cpp/d;/^   ```$/d;s/^   //') \
  <(sed '1,/^namespace fsllm {$/d' tests/fed/signsgd_example.cpp | sed '1d;/^}  \/\/ namespace/d' | sed '$d')
