"""`python -m rtdetr_slurm.launch RUN STAGE`: what the batch script becomes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rtdetr_slurm.errors import UserError
from rtdetr_slurm.launch.allocation import make_allocation, say
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.runs.run import open_run


def main() -> int:
    """Run one stage, or one task of its array; returns the exit code."""
    stop = StopRequest()
    try:
        run = open_run(Path(sys.argv[1]))
        stage = run.plan.stage(sys.argv[2])
        allocation = make_allocation(run, stage, os.environ)
    except UserError as error:
        say(str(error))
        return error.exit_code
    return StageRun(run, allocation, stop).execute()


if __name__ == "__main__":
    sys.exit(main())
