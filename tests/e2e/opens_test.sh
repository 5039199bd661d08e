#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How often the ranks of a node open what they share: one of them reads configuration, tokenizer and index for all (and rank 0 the
# checksums of the model).
set -euo pipefail
fail() { echo "FAILED: $*" >&2; tail -n 20 "$dir"/log >&2; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }
command -v strace >/dev/null || skip "there is no strace"
model=$FSLLM_TEST_DATA/models/stories260K
[[ -d $model ]] || skip "no test data in $FSLLM_TEST_DATA"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
strace -o "$dir/probe" true 2>/dev/null || skip "strace may not trace here"
mkdir "$dir/model"
cp "$model"/{config.json,tokenizer.model,model.safetensors} "$dir/model/"
for i in {1..40}; do echo "{\"instruction\": \"Tell a story of $i cats\", \"output\": \"Once upon a time there were $i.\"}"; done > "$dir/rows.jsonl"
cat > "$dir/run.yaml" << YAML
outdir: $dir/exp
expname: run
use_gpu: False
model: {type: $dir/model}
data: {root: $dir, type: rows.jsonl, splitter: iid, splits: [0.8, 0.2, 0.0]}
dataloader: {batch_size: 2}
federate: {client_num: 4, total_round_num: 3}
train: {local_update_steps: 1, batch_or_epoch: batch}
llm: {tok_len: 64, adapter: {use: True, args: [{adapter_method: lora, r: 2, target_modules: [q_proj]}]}}
YAML
strace -f -qq -e trace=openat,open -o "$dir/trace" "$FSLLM_MPIEXEC" -np 4 "$FSLLM_BIN_DIR/fsllm_hpc" --cfg "$dir/run.yaml" > "$dir/log" 2>&1 ||
  fail "the run"
expect() { # MOST FILE
  local count
  count=$(grep -v ENOENT "$dir/trace" | grep -c "$2\"" || true)
  echo "$2: $count"
  ((count >= 1 && count <= $1)) || fail "$2 was opened $count times by 4 ranks (at most $1 were expected)"
}
expect 2 "$dir/model/config.json"
expect 3 "$dir/model/tokenizer.model"
expect 2 "$dir/exp/run/shards/index.json"
expect 8 "$dir/model/model.safetensors"
echo "opened as often as expected"
