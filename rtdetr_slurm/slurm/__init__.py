"""Slurm from the login node: typed client, parsers, environment, and the submitit adapter."""
