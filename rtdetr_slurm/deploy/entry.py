"""`rtdetr-deploy`: the command in the TensorRT image, with TAO's arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rtdetr_slurm.actions import DEPLOY
from rtdetr_slurm.engine.process import entry


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return entry.main(argv, DEPLOY)


if __name__ == "__main__":
    sys.exit(main())
