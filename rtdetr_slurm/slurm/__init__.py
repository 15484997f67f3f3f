"""Slurm itself, each truth once: states, job ids, times, commands and what they print, the batch
script and the submitit adapter.

All but the adapter is standard library only: login node and compute node share it.
"""
