"""Searches for hyper-parameters: what is tried, by which algorithm, who runs it, and what came of it.

`policy` and `space` read specs, for the login node; what runs in jobs has the standard library and
Optuna.
"""
