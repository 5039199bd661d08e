#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/gpu_day.sh runs through without a GPU: its GPU parts are named as skipped, the others run. And with a GPU that is only
# pretended: every part's own code.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*" >&2; exit 1; }
command -v python3 >/dev/null || { echo "SKIPPED: no python3"; exit 77; }
if command -v nvidia-smi >/dev/null; then echo "SKIPPED: a GPU may be here; tools/gpu_day.sh itself is the test"; exit 77; fi

bash "$FSLLM_SOURCE_DIR/tools/gpu_day.sh" --bin "$FSLLM_BIN_DIR" --out "$dir/out" --work "$dir/work" | tee "$dir/table"
for part in tests numbers speed host nccl zero peer; do grep -q "^## $part: " "$dir/table" || fail "part $part is not in the table"; done
for row in 'e2e_test, suites of GPUs' 'nf4 | fp32, bf16, fp16 on the GPU' '8B | full | 1 × 4096' 'two ranks on one GPU, as one rank' \
  '8B | 32 × dolly | liger-kernel + peft'; do
  grep -F "| $row " "$dir/table" | grep -q 'skipped (no GPU) |$' || fail "not named as skipped: $row"
done
for row in 'nf4 | bf16 on the CPU' 'tiny | lora' 'tiny | full'; do
  grep -F "| $row " "$dir/table" | grep -q '| ok |$' || fail "did not run on the CPU: $row"
done
grep -q '^gpu_day: 0 failed' "$dir/table" || fail "something failed"
cmp <(sed 's/ *$//' "$dir/table") <(sed 's/ *$//' "$dir/out/gpu_day.md") || fail "gpu_day.md is not what was printed"

python3 "$FSLLM_SOURCE_DIR/tests/bundle/gpu_day_rehearsal.py" "$FSLLM_SOURCE_DIR" "$FSLLM_BIN_DIR" "$dir/rehearsal" | tee "$dir/table" || true
grep -q '^gpu_day: 0 failed' "$dir/table" || { cat "$dir/rehearsal/out/gpu_day.log" >&2; fail "the rehearsal"; }
if grep 'skipped (no GPU)' "$dir/table"; then fail "a part saw no GPU"; fi
