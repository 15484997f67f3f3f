"""`rtdetr-slurm cache …`: what is kept of objects that were fetched."""
