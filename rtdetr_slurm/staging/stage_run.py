"""The stage that brings what others read, and checks all of it before a GPU is held."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.contract import BAD_IMAGES, Env, Status
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict
from rtdetr_slurm.plan.staging import Staging
from rtdetr_slurm.resolved_spec import with_values
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.staged import StagedPath, keep_staged
from rtdetr_slurm.staging.transfer import TransferRun

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig


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
        for note in check_staged(self.run, staged, self.tell):
            say(note)
            self.attempt.results.status.write(Status.RUNNING, note)
        return Verdict(Kind.SUCCESS, f"{len(staged)} fields of the spec have their files")


def check_staged(run: Run, staged: Sequence[StagedPath], tell: Callable[[str], None]) -> list[str]:
    """Check data and models of all stages of a run, now that they are all there; notes on them.

    Args:
        tell: is told how far that is.

    Raises:
        RequestError: something is wrong with them, all of it named.
        ActionError: the memory does not suffice.
    """
    from rtdetr_slurm.data.everything import check_everything
    from rtdetr_slurm.spec.experiment import ExperimentConfig

    spec = with_values(run.spec, {one.field: one.path for one in staged})
    experiment = ExperimentConfig.model_validate(spec)
    if problems := [*_model_problems(run, staged, spec, experiment)]:
        raise RequestError("\n".join(dict.fromkeys(problems)))
    stages = {stage.action: stage for stage in run.plan.stages if stage.runs_action}

    def ranks_of(action: str) -> int:
        resources = stages[action].resources
        return resources.nodes * resources.gpus_per_node

    report = check_everything(
        experiment,
        [*stages],
        workers=len(os.sched_getaffinity(0)),
        engine_of=lambda action: stages[action].launch.engine,
        ranks_of=ranks_of,
        skip_bad_images=any(BAD_IMAGES in stage.command for stage in stages.values()),
        told=lambda folder, done, of: tell(f"{folder}: {done:,} of {of:,} images decoded"),
    )
    report.findings.raise_errors()
    return [finding.message for finding in report.findings.warnings]


def _model_problems(
    run: Run,
    staged: Sequence[StagedPath],
    spec: Mapping[str, Any],
    experiment: ExperimentConfig,
) -> Iterator[str]:
    """What is wrong with the models and weights among what was brought."""
    from rtdetr_slurm.spec.paths import fields_of
    from rtdetr_slurm.weights import file_problems
    from rtdetr_slurm.yaml_source import dotted

    uris = {one.path: one.uri for one in staged}
    key = os.environ.get(Env.ENCRYPTION_KEY)
    for stage in run.plan.stages:
        if not stage.runs_action:
            continue
        ours = stage.launch.engine == "rtdetr"
        for ref, at, value in fields_of(spec, stage.action, "read"):
            if ref.path[0] != "dataset" and value in uris:
                holds = ref.extra("x-holds")
                for one in file_problems(experiment, at, Path(value), holds, key, ours=ours):
                    yield f"{dotted(one.path)}: {one.message}".replace(value, uris[value])
