"""RT-DETR on Slurm: from a validated experiment spec to a trained detector.

This package's import is free of heavy work on purpose: the login command and the node
wrapper both pay for it at every start. `submit` and `open_run` are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rtdetr_slurm.api import open_run, submit

__version__ = "0.1.0"
__all__ = ["__version__", "open_run", "submit"]


def __getattr__(name: str) -> Any:
    if name in ("open_run", "submit"):
        from rtdetr_slurm import api

        return getattr(api, name)
    raise AttributeError(f"module 'rtdetr_slurm' has no attribute '{name}'")
