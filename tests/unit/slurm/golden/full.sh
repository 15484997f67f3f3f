#!/bin/bash

# Parameters
#SBATCH --account=acc
#SBATCH --chdir=/runs/train-20260102-030405-abcd
#SBATCH --comment=rtdetr-slurm:train-20260102-030405-abcd:train
#SBATCH --constraint='ib&nvlink'
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --gres=gpu:a100:2
#SBATCH --job-name=my-name
#SBATCH --mem=1536M
#SBATCH --no-requeue
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/train-20260102-030405-abcd/jobs/train/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=high
#SBATCH --signal=B:USR2@120
#SBATCH --time=90
#SBATCH --wckey=key

# setup
export RTDETR_SLURM_WARNED=/runs/train-20260102-030405-abcd/jobs/train/"warned-$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}"
asked() { again=1; echo "$1" >> "$RTDETR_SLURM_WARNED" || :; kill -s "$1" $controller || :; } 2> /dev/null
controller=
trap 'asked USR2' USR2
trap 'asked TERM' TERM
unset SLURM_JWT
module load apptainer
export X='a b'

# command
export SUBMITIT_EXECUTOR=slurm
(trap '' USR2 TERM; exec /venv/bin/python -I -S -u /runs/train-20260102-030405-abcd/jobs/controller.zip stage /runs/train-20260102-030405-abcd train) &
controller=$!
again=1
while [ "$again" ]; do again=; wait $controller && code=0 || code=$?; done
exit $code
