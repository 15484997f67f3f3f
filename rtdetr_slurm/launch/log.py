"""What the launch says."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """One line in the job's log."""
    print(f"rtdetr-slurm: {message}", file=sys.stderr, flush=True)
