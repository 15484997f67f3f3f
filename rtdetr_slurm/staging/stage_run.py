"""The stage that brings what others read, and checks all of it before a GPU is held."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from rtdetr_slurm.contract import BAD_IMAGES, Status
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict
from rtdetr_slurm.plan.staging import Staging
from rtdetr_slurm.resolved_spec import with_values
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.staged import StagedPath, keep_staged
from rtdetr_slurm.staging.transfer import TransferRun

Show = Callable[[str, int, int], None]


class StagingRun(TransferRun):
    """One start of the stage."""

    def __init__(
        self, run: Run, allocation: Allocation, stop: StopRequest, staging: Staging
    ) -> None:
        super().__init__(run, allocation, stop, staging.python_path)
        self.staging = staging

    def transfer(self) -> Verdict:
        from rtdetr_slurm.staging.bring import bring  # needs what is installed

        staged = bring(self.staging, self.run.spec, tell=self.tell, stopped=self.stopped)
        keep_staged(self.attempt.results.path, staged)
        for note in check_staged(self.run, staged, self.show):
            say(note)
            self.attempt.results.status.write(Status.RUNNING, note)
        return Verdict(Kind.SUCCESS, f"{len(staged)} fields of the spec have their files")


def check_staged(run: Run, staged: Sequence[StagedPath], show: Show) -> list[str]:
    """Check the data of all stages of a run, now that they are all there; notes on them.

    Args:
        show: is told how far that is: in words, done, and in all.

    Raises:
        BadData: (a RequestError) something is wrong with them, all of it named.
        ActionError: the memory does not suffice.
    """
    from rtdetr_slurm.data.everything import check_everything
    from rtdetr_slurm.spec.experiment import ExperimentConfig

    spec = with_values(run.spec, {one.field: one.path for one in staged})
    stages = {stage.action: stage for stage in run.plan.stages if stage.runs_action}

    def ranks_of(action: str) -> int:
        resources = stages[action].resources
        return resources.nodes * resources.gpus_per_node

    report = check_everything(
        ExperimentConfig.model_validate(spec),
        [*stages],
        workers=len(os.sched_getaffinity(0)),
        engine_of=lambda action: stages[action].launch.engine,
        ranks_of=ranks_of,
        skip_bad_images=any(BAD_IMAGES in stage.command for stage in stages.values()),
        told=lambda folder, done, of: show(f"{folder}: {done:,} of {of:,} images", done, of),
    )
    report.findings.raise_errors()
    return [finding.message for finding in report.findings.warnings]
