"""The results folder of a task, as one start of it sees it: whose it is, how far the training in it
is, and whether it proves a success."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.contract import Status
from rtdetr_slurm.errors import ActionError, UserError
from rtdetr_slurm.launch.tao import EPOCHS_FIELD, tao_resume_point, unfinished, unguarded
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.artefacts import artefact_problem
from rtdetr_slurm.runs.checkpoints import (
    CheckpointFile,
    in_the_way,
    resume_candidates,
    resume_point,
    resumed_checkpoint,
    verify_checkpoint,
)
from rtdetr_slurm.runs.claim import Start, begin, has_begun, latest_start, new_claim
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.runs.tao import UNSIGNED, leftover


class ResultsFolder:
    """A start's view of its results folder.

    Attributes:
        holds: whether it is known to be this run's, so that it may be written to.
        begun: whether an earlier start has begun in it.
        verify: reads a checkpoint to its end, once: after the step nobody writes any more.
    """

    def __init__(self, run: Run, task: StageTask, start: Start, job_id: str) -> None:
        self.run, self.task, self.start, self.job_id = run, task, start, job_id
        self.path = task.results_dir
        self.action = get_action(task.stage.action)
        self.engine = task.stage.launch.engine
        self.status = StatusLog(status_path(task), start)
        self.holds = self.begun = False
        self.verify = cache(verify_checkpoint)

    def make(self) -> None:
        """Raises ActionError when it cannot be made."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ActionError(f"cannot make results_dir {self.path}: {error.strerror}") from error

    def look_for_claim(self) -> None:
        """See whether it has been this run's already."""
        self.holds = latest_start(self.path, self.start.claim) is not None

    def look(self) -> None:
        """See that the folder is this run's.

        Where it holds checkpoints, nothing is written to it before it is known that they are this
        run's, also not that the start was refused.
        """
        empty = not resume_candidates(self.path)
        self.begun = has_begun(self.path, self.start, holds_checkpoints=not empty)
        self.holds = self.begun or empty

    def take(self, spec: Mapping[str, Any]) -> None:
        """Make the folder this start's.

        Raises:
            ActionError: it is another's, or cannot be written to.
        """
        if self.action.trains and not self.begun:
            resumed = resumed_checkpoint(spec)
            problem = in_the_way(self.path, resumed)
            if problem is None and self.engine == "tao" and resumed is None:
                problem = leftover(self.path)
            if problem is not None:
                raise ActionError(problem)
        mine = new_claim(
            self.start.claim,
            restart=self.start.restart,
            run_dir=str(self.run.path),
            stage=self.task.name,
            job_id=self.job_id,
        )
        try:
            begin(self.path, mine)
        except OSError as error:
            raise ActionError(
                f"results_dir {self.path} is not writable on this node: {error.strerror}"
            ) from error
        self.holds = True

    def say_started(self, spec: Mapping[str, Any]) -> None:
        """Where the engine does not say whose its lines in status.json are, as TAO's and older
        images do not: those that follow this one are this start's."""
        image = self.task.stage.container and self.task.stage.container.image.path
        manifest = self.run.manifest
        version = manifest.images[image].version if image else None
        if self.engine != "tao" and version in (None, manifest.package_version):
            return
        last: dict[str, Any] = {UNSIGNED: True}
        if self.action.trains and isinstance(epochs := value_at(spec, EPOCHS_FIELD), int):
            last["max_epoch"] = epochs - 1
        node = os.uname().nodename
        self.status.write(Status.STARTED, f"the launch of {self.task.name} on {node}", **last)

    def reached(self) -> tuple[int, int]:
        """How far the training is by its furthest file, without reading it: epochs, and steps of
        the next one."""
        try:
            candidates = resume_candidates(self.path)
        except UserError:
            return (0, 0)  # a record that cannot be read is told of when the stage is prepared
        return candidates[0].progress if candidates else (0, 0)

    def resume_point(self, spec: Mapping[str, Any]) -> CheckpointFile | None:
        """Where a further start would go on; None where it would begin anew."""
        if not self.action.resumable:
            return None
        if self.engine == "tao":
            return tao_resume_point(self.path, spec, self.verify)
        return resume_point(self.path, self.verify)[0]

    def proof_problem(self, spec: Mapping[str, Any], kpis: set[str]) -> str | None:
        """What is wrong with what proves the success; None when it is whole."""
        if self.engine == "tao" and (problem := unguarded(self.run, self.task)):
            return problem
        problem = artefact_problem(self.action, self.path, spec, self.verify, self.engine, kpis)
        if problem is None and self.engine == "tao" and self.action.trains:
            return unfinished(self.path, spec)
        return problem
