"""Searches for hyper-parameters: what is tried, how it is chosen, who runs it, what came of it.

`policy` and `space` read specs, for the login node; what runs in jobs has the standard library and
Optuna.
"""
