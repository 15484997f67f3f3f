#!/bin/bash

# Parameters
#SBATCH --account=acc
#SBATCH --chdir=/runs/train-20260102-030405-abcd
#SBATCH --comment=rtdetr-slurm:train-20260102-030405-abcd:train
#SBATCH --constraint='ib&nvlink'
#SBATCH --cpus-per-task=8
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
module load apptainer
export X='a b'

# command
export SUBMITIT_EXECUTOR=slurm
exec /venv/bin/python -u -m rtdetr_slurm.launch /runs/train-20260102-030405-abcd train
