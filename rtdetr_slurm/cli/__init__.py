"""`rtdetr-slurm`: one module per command, each parses, calls and prints."""
