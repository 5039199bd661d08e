#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# jobs/pbs.sh in an environment as PBS makes it, with pretended qstat, qrerun and qsub: it knows the walltime, queues itself again
# when it is stopped, goes on under a new job and when PBS starts the same job again, and ends in the bits of an undisturbed run.
set -euo pipefail
fail() { echo "FAILED: $*" >&2; tail -n 30 "$dir"/*.log >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/bin"
for command in qstat qrerun qsub; do
  printf '#!/bin/sh\necho "%s $*" >> "%s/commands"\n' $command "$dir" > "$dir/bin/$command"
done
echo "echo '    Resource_List.walltime = 01:30:00'" >> "$dir/bin/qstat"
echo 'exit 1' >> "$dir/bin/qrerun" # only operators may
chmod +x "$dir"/bin/*
while read -r name; do unset "$name"; done < <(compgen -e SLURM_ || true)
export PATH=$dir/bin:$FSLLM_BIN_DIR:$FSLLM_SOURCE_DIR/tools:$PATH PBS_O_WORKDIR=$dir PBS_NODEFILE=$dir/nodes CONFIG=run.yaml
printf 'localhost\nlocalhost\n' > "$PBS_NODEFILE"
cat > "$dir/run.yaml" << YAML
outdir: exp
seed: 1
use_gpu: False
model: {type: $FSLLM_SOURCE_DIR/tests/reference/llama}
data: {root: $FSLLM_SOURCE_DIR/tests/reference/federated, type: rows.jsonl, splitter: natural, splitter_args: [{field: client}], splits: [1.0, 0.0, 0.0]}
dataloader: {batch_size: 2}
federate: {method: FedAvg, client_num: 3, total_round_num: 2}
train: {local_update_steps: 1500, batch_or_epoch: batch, optimizer: {type: AdamW, lr: 0.01}}
llm: {tok_len: 64, adapter: {use: True, args: [{adapter_method: lora, r: 4, target_modules: [q_proj]}]}}
YAML
adapter() { echo "$dir/exp/$1/adapter/adapter_model.safetensors"; }
(cd "$dir" && "$FSLLM_MPIEXEC" -np 2 fsllm_hpc --cfg run.yaml expname whole > whole.log 2>&1) || fail "the undisturbed run"

job() { # NUMBER: as PBS starts it, in another folder
  (cd / && exec env PBS_JOBID="$1.server" KEYS="expname job" bash "$FSLLM_SOURCE_DIR/jobs/pbs.sh" > "$dir/job$1.log" 2>&1)
}
stop() { # NUMBER WORDS: starts the job, and stops it when its log has the words
  job "$1" &
  local pid=$! end=$((SECONDS + 120)) wrapper
  until grep -q "$2" "$dir/job$1.log" 2> /dev/null; do ((SECONDS < end)) || fail "job $1 does not say '$2'"; sleep 0.05; done
  sleep 0.5  # the rounds have begun
  wrapper=$(pgrep -f "fsllm_requeue .*$dir/nodes" | head -n 1)
  kill -USR1 "$wrapper"
  wait "$pid"
}

stop 1 'no validation or test rows' || fail "a stopped job that was queued again does not end with 0"
grep -qE 'this job ends in 5(39|40)[0-9] s' "$dir/job1.log" || fail "the walltime is not known"
grep -q 'qrerun 1.server' "$dir/commands" && grep -q 'qsub -v CONFIG=run.yaml,KEYS=expname job,FSLLM_RESTART_COUNT=1 ' "$dir/commands" || fail "it does not queue itself"
FSLLM_RESTART_COUNT=1 job 2 || fail "the job that goes on"
cmp "$(adapter whole)" "$(adapter job)" || fail "other bits"

echo "== the node fails; PBS starts the same job again"
rm -r "$dir/exp/job"
touch "$dir/.fsllm_job_3" # as the first start left it
job 3 || fail "a job that had done nothing"
[[ ! -e $dir/.fsllm_job_3 ]] || fail "the mark is left behind"
cmp "$(adapter whole)" "$(adapter job)" || fail "other bits after a failed node"
job 4 && fail "a run is begun over another"
grep -q 'exp/job' "$dir/job4.log" || fail "the refusal"
echo "all passed"
