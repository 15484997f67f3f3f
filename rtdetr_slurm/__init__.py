"""RT-DETR on Slurm: from a validated experiment spec to a trained detector.

This package's import is free of heavy work on purpose: the login command and the node
wrapper both pay for it at every start.
"""

__version__ = "0.1.0"
