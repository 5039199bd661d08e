#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Federated LoRA of SmolLM2 on the CPUs of 4 nodes, a rank a node, under PBS (OpenPBS, PBS Professional; Torque: -l nodes=4:ppn=1).
# Submit: qsub -v CONFIG=run.yaml jobs/pbs.sh, or with keys: qsub -v CONFIG=run.yaml,KEYS="train.optimizer.lr 0.01" jobs/pbs.sh
# Results: outdir/expname of the configuration. Stops 2 minutes before the walltime, and queues itself again (qrerun where the
# user may, else qsub of this very script, with what stands here and not on the first command line), to go on with the same bits.
#PBS -N fsllm
#PBS -l select=4:ncpus=4:mpiprocs=1
#PBS -l walltime=04:00:00
#PBS -j oe
#PBS -r y
set -uo pipefail
cd "${PBS_O_WORKDIR:?this is a script for qsub}" || exit 2
: "${CONFIG:?name the configuration: qsub -v CONFIG=run.yaml jobs/pbs.sh}"

# PBS tells neither when the job ends nor that it was started before (a node that failed, qrerun).
walltime=${PBS_WALLTIME:-$(qstat -f "$PBS_JOBID" | sed -n 's/.*Resource_List.walltime = //p' | awk -F: '{ print ($1 * 60 + $2) * 60 + $3 }')}
if [ -n "$walltime" ]; then export FSLLM_JOB_END_TIME=$(($(date +%s) + walltime)); fi
started=.fsllm_job_${PBS_JOBID%%.*}
if [ -e "$started" ]; then export FSLLM_RESTART_COUNT=$((${FSLLM_RESTART_COUNT:-0} + 1)); fi
touch "$started"

ranks=$(wc -l < "$PBS_NODEFILE")
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # PBS: ncpus / mpiprocs
ended=
trap 'ended=1' TERM # qdel, or a job that goes before: PBS knows what becomes of this one
# Ranks that are not bound share the cores of their node among them. KEYS are words.
# shellcheck disable=SC2086
fsllm_requeue mpirun --hostfile "$PBS_NODEFILE" -np "$ranks" --bind-to none -x PATH -x LD_LIBRARY_PATH -x OMP_NUM_THREADS \
  "$(command -v fsllm_hpc)" --cfg "$CONFIG" ${KEYS:-}
code=$?
if [ $code -ne 85 ]; then
  rm -f "$started"
  exit $code
fi
if [ -n "$ended" ]; then exit $code; fi
qrerun "$PBS_JOBID" 2> /dev/null && exit 0
rm -f "$started"
qsub -v "CONFIG=$CONFIG,KEYS=${KEYS:-},FSLLM_RESTART_COUNT=1" "$0" && exit 0
echo "this job cannot be queued again. Submit: qsub -v CONFIG=$CONFIG,FSLLM_RESTART_COUNT=1 jobs/pbs.sh" >&2
exit $code
