"""The stage that brings what others read, and checks all of it before a GPU is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rtdetr_slurm.contract import Status
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict
from rtdetr_slurm.plan.staging import Staging
from rtdetr_slurm.resolved_spec import with_values
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.staged import StagedPath, keep_staged
from rtdetr_slurm.staging.transfer import TransferRun


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
        for note in check_staged(self.run, staged):
            say(note)
            self.attempt.results.status.write(Status.RUNNING, note)
        return Verdict(Kind.SUCCESS, f"{len(staged)} fields of the spec have their files")


def check_staged(run: Run, staged: Sequence[StagedPath]) -> list[str]:
    """Check the data of all stages of a run, now that they are all there; notes on them.

    Raises:
        RequestError: something is wrong with them, all of it named.
        ActionError: the memory does not suffice for the annotations.
    """
    from rtdetr_slurm.data.check import Checks, check_sources
    from rtdetr_slurm.data.coco import read_annotations
    from rtdetr_slurm.spec.experiment import ExperimentConfig

    spec: Mapping[str, Any] = with_values(run.spec, {one.field: one.path for one in staged})
    experiment = ExperimentConfig.model_validate(spec)
    read = cache(read_annotations)
    notes: dict[str, None] = {}
    for stage in run.plan.stages:
        if stage.runs_action:
            checks = Checks(engine=stage.launch.engine, read=read)
            notes |= dict.fromkeys(check_sources(experiment, stage.action, checks).notes)
    return [*notes]
