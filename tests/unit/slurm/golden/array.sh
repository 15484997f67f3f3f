#!/bin/bash

# Parameters
#SBATCH --array=0-11%3
#SBATCH --chdir=/runs/train-20260102-030405-abcd
#SBATCH --comment=rtdetr-slurm:train-20260102-030405-abcd:train
#SBATCH --cpus-per-task=8
#SBATCH --dependency='afterok:<stage>:<other>,afterany:<train of train-20260101-030405-0000>'
#SBATCH --gpus-per-node=2
#SBATCH --job-name=rtdetr-train
#SBATCH --kill-on-invalid-dep=yes
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/train-20260102-030405-abcd/jobs/train/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --time=90

# setup
export RTDETR_SLURM_WARNED=/runs/train-20260102-030405-abcd/jobs/train/"warned-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
asked() { again=1; echo "$1" >> "$RTDETR_SLURM_WARNED" || :; kill -s "$1" $controller || :; } 2> /dev/null
controller=
trap 'asked USR2' USR2
trap 'asked TERM' TERM
unset SLURM_JWT

# command
export SUBMITIT_EXECUTOR=slurm
(trap '' USR2 TERM; exec /venv/bin/python -I -S -u /runs/train-20260102-030405-abcd/jobs/controller.zip stage /runs/train-20260102-030405-abcd train) &
controller=$!
again=1
while [ "$again" ]; do again=; wait $controller && code=0 || code=$?; done
exit $code
