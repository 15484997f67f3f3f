"""What one does with runs: prepare, submit, cancel, survey, follow; over Slurm or this machine."""
