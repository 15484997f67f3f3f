"""`rtdetr-deploy`: the command in the TensorRT image, with TAO's arguments."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rtdetr_slurm.actions import DEPLOY
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.engine.process import entry
from rtdetr_slurm.engine.process.arguments import SWEEP
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] != [SWEEP]:
        return entry.main(argv, DEPLOY)
    from rtdetr_slurm.deploy.sweep import sweep  # with torch, which the entry itself does without

    try:
        return sweep(words[1:])
    except UserError as error:
        print(f"rtdetr: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except (Interrupted, KeyboardInterrupt):
        print(
            "rtdetr: stopped; what was tried before is in sweep.json", file=sys.stderr, flush=True
        )
        return ExitCode.FAILED


if __name__ == "__main__":
    sys.exit(main())
