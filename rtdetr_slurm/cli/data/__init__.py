"""The commands `rtdetr-slurm data …`, one module each."""
