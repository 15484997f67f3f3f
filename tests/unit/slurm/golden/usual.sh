#!/bin/bash

# Parameters
#SBATCH --chdir=/runs/train-20260102-030405-abcd
#SBATCH --comment=rtdetr-slurm:train-20260102-030405-abcd:train
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-node=2
#SBATCH --job-name=rtdetr-train
#SBATCH --mem=65536M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/runs/train-20260102-030405-abcd/jobs/train/%j_0_log.out
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --time=90

# command
export SUBMITIT_EXECUTOR=slurm
exec /venv/bin/python -u -m rtdetr_slurm.launch /runs/train-20260102-030405-abcd train
