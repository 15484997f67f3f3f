"""The commands `rtdetr-slurm automl …`, one module each."""
