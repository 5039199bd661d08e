#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# hpc.stage_dir on another file system: the weights are copied there once, by one process of a node, and read from there by all
# ranks and the next runs, with the bits of a run without; other models, damage, two jobs at once and a full disk are coped with.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; tail -n 20 "$dir"/*.log >&2; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }
dir=$(mktemp -d)
stage=$(mktemp -d /dev/shm/fsllm_stage.XXXXXX)
trap 'rm -rf "$dir" "$stage"' EXIT
[[ $(stat -c %d "$dir") != $(stat -c %d "$stage") ]] || skip "/dev/shm is no file system of its own"
cp -r "$FSLLM_SOURCE_DIR/tests/reference/llama" "$dir/model"
cat > "$dir/run.yaml" << YAML
outdir: $dir/exp
seed: 1
use_gpu: False
model: {type: $dir/model}
data: {root: $FSLLM_SOURCE_DIR/tests/reference/federated, type: rows.jsonl, splitter: natural, splitter_args: [{field: client}], splits: [1.0, 0.0, 0.0]}
dataloader: {batch_size: 2}
federate: {method: FedAvg, client_num: 3, total_round_num: 1}
train: {local_update_steps: 3, batch_or_epoch: batch, optimizer: {type: SGD, lr: 0.5}}
llm: {tok_len: 64, adapter: {use: True, args: [{adapter_method: lora, r: 2, target_modules: [q_proj]}]}}
YAML
train() { # NAME KEY VALUE...
  local name=$1
  shift
  "$FSLLM_MPIEXEC" -np 2 "$FSLLM_BIN_DIR/fsllm_hpc" --cfg "$dir/run.yaml" expname "$name" "$@" > "$dir/$name.log" 2>&1
}
same_bits() { cmp "$dir/exp/$1/adapter/adapter_model.safetensors" "$dir/exp/plain/adapter/adapter_model.safetensors" || fail "$1: other bits"; }
only_copy() { find "$stage" -name model.safetensors; }

train plain || fail "a run without"
train first hpc.stage_dir "$stage" || fail "a run with a folder of the node"
same_bits first
[[ -s $(only_copy) ]] || fail "there is no copy"
cp "$(only_copy)" "$dir/good"
inode=$(stat -c %i "$(only_copy)")
train second hpc.stage_dir "$stage" || fail "the next run"
same_bits second
[[ $(stat -c %i "$(only_copy)") == "$inode" ]] || fail "the next run has copied them again"
train near hpc.stage_dir "$dir/near" || fail "a folder of the same file system"
[[ ! -e $dir/near ]] || fail "copied within a file system"

echo "== the copy is what is read, and is checked"
printf 'x' | dd of="$(only_copy)" bs=1 seek=5000 conv=notrunc status=none
train damaged hpc.stage_dir "$stage" || fail "a damaged copy"
cmp "$dir/good" "$(only_copy)" || fail "the damage is not seen"
same_bits damaged
mv "$dir/model" "$dir/old"
cp -r "$FSLLM_SOURCE_DIR/tests/reference/llama" "$dir/model"
printf '\x11' | dd of="$dir/model/model.safetensors" bs=1 seek=$(($(stat -c %s "$dir/model/model.safetensors") - 4)) conv=notrunc status=none
train other hpc.stage_dir "$stage" || fail "another model in the same place"
if cmp -s "$dir/good" "$(only_copy)"; then fail "the copy of the model that was there before is kept"; fi
cmp -s "$dir/exp/other/adapter/adapter_model.safetensors" "$dir/exp/plain/adapter/adapter_model.safetensors" && fail "the copy of the model that was there before is used"

echo "== two jobs at once"
rm -rf "$dir/model" "${stage:?}"/*
mv "$dir/old" "$dir/model"
train left hpc.stage_dir "$stage" &
left=$!
train right hpc.stage_dir "$stage" || fail "a job beside another"
wait $left || fail "the other job"
same_bits left
same_bits right
[[ $(only_copy | wc -l) == 1 ]] || fail "there are two copies"
find "$stage" -name '*.partial.*' | grep . && fail "something is left behind"

[[ $(id -u) -eq 0 ]] && unshare --mount true 2> /dev/null || skip "no right to make namespaces; the rest passed"
echo "== a full disk, and a node with another model"
mkdir "$dir/small" "$dir/own"
in_namespace() { # COMMAND...: with a tiny disk of 64 KiB at small, and a disk at own
  unshare --mount bash -c 'mount -t tmpfs -o size=64k none "$1/small" && mount -t tmpfs none "$1/own" && shift && exec "$@"' in "$dir" "$@"
}
code=0
in_namespace "$FSLLM_MPIEXEC" -np 2 "$FSLLM_BIN_DIR/fsllm_hpc" --cfg "$dir/run.yaml" expname full hpc.stage_dir "$dir/small" > "$dir/full.log" 2>&1 || code=$?
[[ $code == 2 && $(grep -c 'small has 0 MiB left (the weights take' "$dir/full.log") == 1 ]] || fail "a full disk ends with $code"
cp -r "$dir/model" "$dir/another"
printf '\x11' | dd of="$dir/another/model.safetensors" bs=1 seek=$(($(stat -c %s "$dir/another/model.safetensors") - 4)) conv=notrunc status=none
cat > "$dir/node" << SH
#!/bin/bash
[ "\${OMPI_COMM_WORLD_RANK:-\${PMI_RANK:-0}}" = 0 ] || mount --bind "$dir/another" "$dir/model"
mount -t tmpfs none "$dir/own"
exec "\$@"
SH
chmod +x "$dir/node"
code=0
"$FSLLM_MPIEXEC" -np 2 unshare --mount "$dir/node" "$FSLLM_BIN_DIR/fsllm_hpc" --cfg "$dir/run.yaml" expname apart hpc.stage_dir "$dir/own" > "$dir/apart.log" 2>&1 || code=$?
[[ $code == 2 ]] && grep -q 'is not what rank 0 has read' "$dir/apart.log" || fail "another model on the second node: $code"
echo "all passed"
