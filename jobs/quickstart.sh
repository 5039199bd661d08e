#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Sets the machine up, builds, and lets four clients teach a real 135M model their house rules by federation:
# trains on two MPI ranks, then asks the model before and after on rows that no client has seen.
# usage: jobs/quickstart.sh [--full] [KEY=VALUE]...
#   --full      more rounds, and each client alone beside the federation
#   KEY=VALUE   any key of configs/quickstart.yaml, e.g. seed=2
# FSLLM_DEMO_MODEL=PATH in the environment: another model, a .gguf file or a Hugging Face folder.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

full=0 given=()
for argument; do
  case $argument in
    --full) full=1 ;;
    -h | --help) sed -n '5,8s/^# \{0,1\}//p' jobs/quickstart.sh; exit 0 ;;
    [a-z]*=*) given+=("$argument") ;;
    *) echo "quickstart: unknown argument $argument (--full and KEY=VALUE are known). See --help." >&2; exit 2 ;;
  esac
done
((!full)) || given=(federate.total_round_num=16 ${given[@]+"${given[@]}"})

started=$SECONDS
step() { printf '\n== %s\n' "$*"; }
minutes() { printf '%d:%02d min' $((($SECONDS - $1) / 60)) $((($SECONDS - $1) % 60)); }

# One thread a rank, as many ranks as cores up to two: the trained bits are the same for any number.
ranks=$(($(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc) > 1 ? 2 : 1))
export OMP_NUM_THREADS=1
. tools/mpi_env.sh

launch() {  # launch PROGRAM ARGUMENTS...
  local program=build/release/bin/$1
  shift
  local -x XDG_CACHE_HOME=$PWD/.deps/cache  # for the unpacked weights
  if ((ranks > 1)); then mpirun -np "$ranks" "$program" "$@"; else "$program" "$@"; fi
}

config=configs/quickstart.yaml data=datasets/quickstart
federated=exp/quickstart alone=exp/quickstart_alone shards=exp/quickstart_shards

train() {  # train RUN_DIRECTORY [KEY=VALUE]...
  local dir=$1
  shift
  [[ ! -e $dir/config.yaml ]] || echo "quickstart: $dir holds an earlier run of this demonstration, which is replaced"
  launch fsllm_hpc --cfg "$config" --overwrite ${given[@]+"${given[@]}"} "$@" \
    data.shards="$shards" model.type="$model" outdir=exp expname="${dir#exp/}"
}

model=${FSLLM_DEMO_MODEL:-.deps/models/SmolLM2-135M-Instruct.Q4_1.gguf}

step "1 of 4: the machine, the model (SmolLM2-135M-Instruct) and the programs"
if [[ -n ${FSLLM_DEMO_MODEL:-} ]]; then bash tools/bootstrap.sh; else bash tools/bootstrap.sh --with-demo-model; fi
# From nothing in batches, in less than half the time; a folder that was configured before stays as it is.
batches=(); [[ -e build/release/CMakeCache.txt ]] || batches=(-DFSLLM_UNITY=ON)
CCACHE_DEPEND=1 bash tools/build.sh --target programs release ${batches[@]+"${batches[@]}"}
built=$SECONDS model=$(realpath "$model")

step "2 of 4: the data of four clients"
rm -rf "$shards"
set_keys=("model.type=$model" ${given[@]+"${given[@]}"})
launch fsllm_shard --cfg "$config" --out "$shards" "${set_keys[@]}"

step "3 of 4: training on $ranks ranks"
train "$federated"
((!full)) || { echo; train "$alone" federate.method=local; }

step "4 of 4: questions that no client has seen, before and after"
adapters=()
if ((full)); then
  for client in 1 2 3 4; do adapters+=("--adapter=alone-$client=$alone/adapter/client_0000$client"); done
fi
adapters+=("--adapter=federated=$federated/adapter")
launch fsllm_eval --model "$model" --base "${adapters[@]}" --tasks test.jsonl --data "$data" \
  --prompt_template plain --examples 1 --out "$federated/evaluation"

cat <<TEXT

run directory      $federated  (config.yaml, metrics.jsonl, eval_results.log, checkpoints)
adapter            $federated/adapter  (PEFT format)
its page           $federated/report.html
before and after   $federated/evaluation/results.svg
answers one by one $federated/evaluation/predictions.jsonl
time               $(minutes "$started"), of which $(minutes "$built") after the build
TEXT
