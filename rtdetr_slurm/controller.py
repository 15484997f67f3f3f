"""`python -m rtdetr_slurm.controller stage RUN STAGE`, what the batch script runs on node 0, and
`… node RUN STAGE [TASK [TRIAL]]`, the node wrapper; `… copy …` comes before that where nodes copy
what they are to read. A run's own archive of this code is called alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from rtdetr_slurm.automl.finalize import BestRun
from rtdetr_slurm.automl.worker import Worker
from rtdetr_slurm.errors import RequestError, SiteError, UserError, explained
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.arrivals import COPY, NODE
from rtdetr_slurm.launch.job_run import JobRun
from rtdetr_slurm.launch.local_allocation import LocalAllocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.node import run_node
from rtdetr_slurm.launch.patience import patiently
from rtdetr_slurm.launch.probe import PROBE, PROBE_NODE, run_probe
from rtdetr_slurm.launch.probe_node import run_probe_node
from rtdetr_slurm.launch.slurm_allocation import SlurmAllocation
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import first_start, task_events
from rtdetr_slurm.staging.node_copy import run_copy
from rtdetr_slurm.staging.stage_run import StagingRun
from rtdetr_slurm.staging.upload_run import UploadRun


def main() -> int:
    """Run one stage, or one task of its array, or one node of it, or a probe of `doctor`; returns
    the exit code."""
    part, *arguments = sys.argv[1:]
    return _PARTS[part](arguments)


def _run_stage(arguments: Sequence[str]) -> int:
    stop = StopRequest(os.environ)
    try:
        run, allocation = patiently(partial(_opened, arguments), lambda: stop.signum is not None)
    except (UserError, OSError) as error:
        problem = explained(error)
        say(str(problem))
        return problem.exit_code
    return _job_run(run, allocation, stop).execute()


def _job_run(run: Run, allocation: Allocation, stop: StopRequest) -> JobRun:
    """What this job does."""
    stage = allocation.task.stage
    if stage.search is not None:
        return Worker(run, allocation, stop, stage.search)
    if stage.best_of is not None:
        return BestRun(run, allocation, stop)
    if stage.staging is not None:
        return StagingRun(run, allocation, stop, stage.staging)
    if stage.upload is not None:
        return UploadRun(run, allocation, stop, stage.upload)
    return StageRun(run, allocation, stop)


def _opened(arguments: Sequence[str]) -> tuple[Run, Allocation]:
    run = open_run(Path(arguments[0]))
    stage = run.plan.stage(arguments[1])
    first = int(arguments[2]) if len(arguments) > 2 else 0
    allocation = make_allocation(run, stage, os.environ, first)
    if first_start(task_events(run.events(), allocation.task)) > first:
        raise RequestError(f"{stage.name} was submitted once more; this job does nothing")
    return run, allocation


def make_allocation(
    run: Run, stage: Stage, environ: Mapping[str, str], first: int = 0
) -> Allocation:
    """The allocation that this process runs in.

    Args:
        first: number of the first start of this job.

    Raises:
        SiteError: it is not inside the kind of job that the plan says.
    """
    try:
        if stage.launch.scheduler == "local":
            return LocalAllocation(stage, environ, first)
        return SlurmAllocation(run, stage, environ, first)
    except KeyError as error:
        raise SiteError(
            f"not inside a job: {error.args[0]} is not set; this is started by the batch script "
            "of a run, not by hand"
        ) from None


_PARTS: Mapping[str, Callable[[Sequence[str]], int]] = {
    "stage": _run_stage,
    NODE: run_node,
    COPY: run_copy,
    PROBE: run_probe,
    PROBE_NODE: run_probe_node,
}


if __name__ == "__main__":
    sys.exit(main())
