#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Jobs on a real Slurm of four nodes on this machine. Skipped where there is no Slurm, or where FSLLM_TEST_SLURM, a script that
# brings one up and down (`up DIR NODES CPUS`, `down DIR`), is not there.
set -euo pipefail
cluster=${FSLLM_TEST_SLURM:-}
[ -f "$cluster" ] || { echo "SKIPPED: FSLLM_TEST_SLURM names no script"; exit 77; }
for program in slurmctld slurmd munged sbatch; do
  command -v $program > /dev/null || { echo "SKIPPED: no $program"; exit 77; }
done
[ "$(id -u)" -eq 0 ] && unshare --mount true 2> /dev/null || { echo "SKIPPED: no right to make namespaces"; exit 77; }
model=${FSLLM_TEST_DATA:-}/models/stories260K
[ -d "$model" ] || { echo "SKIPPED: no test data"; exit 77; }

dir=$(mktemp -d /tmp/fsslurm.XXXXXX)
chmod 755 "$dir" # munge wants to reach its socket
export MINISLURM_PORT=$((20000 + RANDOM % 20000)) SLURM_CONF=$dir/cluster/slurm.conf PATH=$FSLLM_BIN_DIR:$FSLLM_SOURCE_DIR/tools:$PATH
finish() { bash "$cluster" down "$dir/cluster" > /dev/null 2>&1 || true; rm -rf "$dir"; }
trap finish EXIT
fail() { echo "FAILED: $*" >&2; for log in "$dir"/*.log; do echo "== $log"; tail -n 30 "$log"; done >&2; exit 1; }
within() { # SECONDS COMMAND...: waits until the command succeeds
  local end=$((SECONDS + $1))
  shift
  until "$@" > /dev/null 2>&1; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.1
  done
}
ended() { [ -z "$(timeout 10 squeue -h -j "$1" 2> /dev/null)" ]; }
state() { timeout 10 scontrol show job "$1" | grep -oP "(JobState|Restarts|ExitCode)=\S+" | tr '\n' ' '; }
says() { grep -q "$2" "$1"; }
submit() { timeout 20 sbatch --parsable --time=30 "$@"; }

config() { # NAME: a run of four clients
  cat > "$dir/$1.yaml" << YAML
outdir: $dir/exp
expname: $1
seed: 1
use_gpu: False
model: {type: $model}
llm: {tok_len: 128, adapter: {use: True, args: [{adapter_method: lora, r: 4, lora_alpha: 8, target_modules: [all-linear]}]}}
data: {root: $FSLLM_SOURCE_DIR/datasets/quickstart, type: train.jsonl, prompt_template: plain, splitter: natural, splitter_args: [{field: client}], splits: [0.9, 0.1, 0.0]}
dataloader: {batch_size: 8}
federate: {method: FedAvg, client_num: 4, total_round_num: 2}
train: {local_update_steps: 100, batch_or_epoch: batch, optimizer: {type: AdamW, lr: 0.001}}
early_stop: {patience: 0}
YAML
}

bash "$cluster" up "$dir/cluster" 4 4 > "$dir/up.log" 2>&1 || fail "the cluster does not come up"
within 20 sh -c 'timeout 5 sinfo -h -o %t | grep -q idle' || fail "no node is idle"

echo "== preempted twice, queued again, and the bits of an undisturbed mpirun -np 2"
config whole
mpirun --oversubscribe -np 2 fsllm_hpc --cfg "$dir/whole.yaml" > "$dir/whole.log" 2>&1 || fail "the undisturbed run"
config job
log=$dir/job.log
job=$(submit --output="$log" --cpus-per-task=1 "$FSLLM_SOURCE_DIR/jobs/nodes_cpu.sbatch" "$dir/job.yaml")
for stop in 1 2; do
  marker=$([ $stop = 1 ] && echo 'before training' || echo 'had ended before the stop')
  within 120 says "$log" "$marker" || fail "the job does not get to '$marker'"
  sleep 0.7
  scancel --signal=USR1 --batch "$job"
  within 60 sh -c "[ \"\$(grep -c 'goes back into the queue' $log)\" = $stop ]" || fail "stop $stop does not requeue"
done
within 180 ended "$job" || fail "the job does not end"
state "$job" | tee "$dir/state.log"
grep -q 'JobState=COMPLETED.*' "$dir/state.log" || fail "the job has not completed"
grep -q 'Restarts=2' "$dir/state.log" || fail "it was not queued again twice"
cmp "$dir/exp/whole/adapter/adapter_model.safetensors" "$dir/exp/job/adapter/adapter_model.safetensors" || fail "other bits"
[ ! -e "$dir/exp/job/unfinished" ] || fail "the unfinished round was left behind"

echo "== sharded, trained on nodes with (pretended) GPUs, put to a task"
job=$(submit --output="$dir/shard.log" --cpus-per-task=2 "$FSLLM_SOURCE_DIR/jobs/shard.sbatch" --cfg "$dir/whole.yaml" --out "$dir/shards")
within 60 ended "$job" && [ -f "$dir/shards/index.json" ] || fail "shard.sbatch"
config gpu
job=$(submit --output="$dir/gpu.log" --nodes=2 --ntasks-per-node=2 --gpus-per-node=2 --cpus-per-task=1 \
  "$FSLLM_SOURCE_DIR/jobs/nodes_gpu.sbatch" "$dir/gpu.yaml" data.shards "$dir/shards" use_gpu auto)
within 120 ended "$job" || fail "nodes_gpu.sbatch does not end"
cmp "$dir/exp/whole/adapter/adapter_model.safetensors" "$dir/exp/gpu/adapter/adapter_model.safetensors" || fail "other bits from shards"
mkdir "$dir/tasks"
for i in $(seq 12); do
  echo "{\"question\": \"Once upon a time number $i\", \"choices\": [\"there was\", \"zebra\"], \"answer\": 0}"
done > "$dir/tasks/own.jsonl"
job=$(submit --output="$dir/evaluate.log" --ntasks-per-node=2 --cpus-per-task=1 "$FSLLM_SOURCE_DIR/jobs/evaluate.sbatch" \
  --run "$dir/exp/gpu" --tasks own.jsonl --data "$dir/tasks" --out "$dir/scores")
within 60 ended "$job" && grep -q '"own"' "$dir/scores/results.json" || fail "evaluate.sbatch"

echo "== an array of six runs becomes a table"
config sweep
sed -i 's/local_update_steps: 100/local_update_steps: 5/; /^outdir/d; /^expname/d; /^seed/d' "$dir/sweep.yaml"
printf 'base: sweep.yaml\noutdir: runs\ngrid:\n  train.optimizer.lr: [0.001, 0.003, 0.01]\nseeds: [1, 2]\nmetrics: [val.loss_per_token]\n' > "$dir/spec.yaml"
job=$(submit --array=0-5 --output="$dir/sweep-%a.log" --cpus-per-task=1 "$FSLLM_SOURCE_DIR/jobs/sweep.sbatch" "$dir/spec.yaml")
within 240 ended "$job" || fail "the array does not end"
fsllm_sweep "$dir/spec.yaml" table --format markdown | tee "$dir/table.log"
[ "$(grep -c ' ± ' "$dir/table.log")" = 3 ] && [ "$(grep -o '\*\*[^*]*\*\*' "$dir/table.log" | wc -l)" = 1 ] || fail "the table"

echo "== before the time limit, which squeue tells"
config limit
log=$dir/limit.log
job=$(submit --output="$log" --cpus-per-task=1 --nodes=2 --time=1 "$FSLLM_SOURCE_DIR/jobs/nodes_cpu.sbatch" "$dir/limit.yaml" hpc.time_limit_margin_s 5)
within 60 says "$log" "this job ends in [0-9]* s; training stops 5 s before that" || fail "the limit is not known"
scancel "$job"
within 20 ended "$job" || fail "scancel does not end it"
if grep -q 'goes back into the queue' "$log"; then fail "a job that was cancelled comes back"; fi

echo "== a rank that dies ends the step at once, with the reason"
config killed
log=$dir/killed.log
job=$(submit --output="$log" --cpus-per-task=1 "$FSLLM_SOURCE_DIR/jobs/nodes_cpu.sbatch" "$dir/killed.yaml")
within 60 says "$log" 'before training' || fail "the job does not begin"
pkill -KILL -n -f "fsllm_hpc --cfg $dir/killed.yaml" || fail "no rank to kill"
within 20 ended "$job" || fail "the job goes on without a rank"
grep -qiE 'killed|signal 9|exited|terminated' "$log" || fail "nothing tells of the rank"
state "$job"

echo "== a node that fails: the job goes on on the nodes that are left"
config failed
log=$dir/failed.log
job=$(submit --output="$log" --nodes=3 --cpus-per-task=1 "$FSLLM_SOURCE_DIR/jobs/nodes_cpu.sbatch" "$dir/failed.yaml")
within 60 says "$log" 'before training' || fail "the job does not begin"
sleep 1
node=$(scontrol show hostnames "$(squeue -h -j "$job" -o %N)" | tail -n 1)
pkill -KILL -f "slurmd .*-N $node" || fail "no slurmd of $node"
scontrol update nodename="$node" state=down reason=test # at once, instead of after SlurmdTimeout
within 60 sh -c "[ \"\$(grep -c 'run directory' $log)\" = 2 ]" || fail "the job does not begin again"
within 180 ended "$job" || fail "the job does not end"
state "$job" | tee "$dir/state.log"
grep -q 'JobState=COMPLETED.*' "$dir/state.log" || fail "the job has not completed"
cmp "$dir/exp/whole/adapter/adapter_model.safetensors" "$dir/exp/failed/adapter/adapter_model.safetensors" || fail "other bits after a node failed"

echo "== flags of srun that start ranks which do not know each other"
for flags in "--mpi=none" "--mpi=pmi2"; do
  config wrong
  job=$(submit --output="$dir/wrong.log" --nodes=2 --ntasks-per-node=1 --wrap "srun $flags fsllm_hpc --cfg $dir/wrong.yaml") || fail "sbatch"
  within 60 ended "$job" || fail "srun $flags hangs"
  [ "$(grep -c -- 'srun --mpi=pmix' "$dir/wrong.log")" = 1 ] || fail "srun $flags: not one line of advice"
  rm -rf "$dir/wrong.log" "$dir/exp/wrong"
done

echo "== launches that leave things idle, or lose the log"
grep -q '2 GPUs a node are idle (this build has no CUDA)' "$dir/gpu.log" || fail "idle GPUs" # where it has, they are not pretended
job=$(submit --output="$dir/by_task.log" --nodes=2 --ntasks-per-node=2 --gpus-per-task=1 --cpus-per-task=1 \
  --wrap "mpirun fsllm_hpc --check-env; echo code \$?")
within 60 ended "$job" || fail "--check-env hangs"
grep -q 'problem: ranks see between 1 and 2 GPUs (--gpus-per-task under mpirun' "$dir/by_task.log" || fail "GPUs by task"
grep -q 'code 2' "$dir/by_task.log" || fail "GPUs by task are taken"
config idle
job=$(submit --output="$dir/idle.log" --nodes=2 --ntasks-per-node=2 --no-requeue \
  --wrap "exec fsllm_requeue mpirun -np 1 fsllm_hpc --cfg $dir/idle.yaml federate.total_round_num 1 train.local_update_steps 2 hpc.time_limit_margin_s 3000")
within 60 ended "$job" || fail "a run on one of four tasks does not end"
for words in '3 of 4 tasks are idle (SLURM_NTASKS has 4' 'Submit with --requeue' 'hpc.time_limit_margin_s = 3000'; do
  grep -qF -- "$words" "$dir/idle.log" || fail "no '$words'"
done
job=$(submit --output="$dir/again.log" --requeue --wrap 'exec fsllm_requeue bash -c "trap \"exit 85\" USR1; echo begun; for i in \$(seq 30); do sleep 0.1; done"')
within 30 says "$dir/again.log" begun || fail "a job does not begin"
scancel --signal=USR1 --batch "$job"
within 60 says "$dir/again.log" 'the log of the earlier start is gone' || fail "a log that was overwritten is not told of"
within 30 ended "$job" || fail "a job does not end"
if grep -q 'open-mode' "$dir/job.log"; then fail "a log that is appended to is warned of"; fi
echo "all passed"
