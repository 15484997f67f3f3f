"""The stage that brings what others read, and checks all of it before a GPU is held."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from typing import Any

from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.installed import see_installed
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict, Witnesses, decide
from rtdetr_slurm.plan.staging import Staging
from rtdetr_slurm.resolved_spec import with_values
from rtdetr_slurm.runs.alive import say_alive
from rtdetr_slurm.runs.live import Live, StartTimes, write_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import secrets_of
from rtdetr_slurm.runs.staged import StagedPath, keep_staged
from rtdetr_slurm.staging.progress import Progress, Stopped

_TELL_EVERY_S = 5.0
_SAY_EVERY_S = 60.0


class StagingRun(StageRun):
    """One start of the stage."""

    def __init__(
        self, run: Run, allocation: Allocation, stop: StopRequest, staging: Staging
    ) -> None:
        super().__init__(run, allocation, stop)
        self.staging = staging
        self._next_line = self._next_look = 0.0

    def prepare(self) -> None:
        see_installed(self.staging.python_path, "boto3")
        os.environ |= {k: v for k, v in self.task.stage.launch.env.items() if v is not None}
        os.environ |= secrets_of(self.run.path, self.task.stage)
        results = self.attempt.results
        results.make()
        results.look()
        results.take(self.run.spec)

    def work(self) -> Verdict:
        from rtdetr_slurm.staging.bring import bring  # needs what is installed

        try:
            staged = bring(
                self.staging,
                self.run.spec,
                tell=self._tell,
                stopped=lambda: self.stop.signum is not None,
            )
        except Stopped:
            return self._interrupted()
        keep_staged(self.attempt.results.path, staged)
        self._check(staged)
        return Verdict(Kind.SUCCESS, f"{len(staged)} sources are at hand")

    def end_facts(self, verdict: Verdict) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def after_end(self) -> None:
        pass

    def _check(self, staged: list[StagedPath]) -> None:
        """All that is wrong with the data of the stages that read them."""
        from functools import cache

        from rtdetr_slurm.data.check import Checks, check_sources
        from rtdetr_slurm.data.coco import read_annotations
        from rtdetr_slurm.spec.experiment import ExperimentConfig

        spec = with_values(self.run.spec, {one.field: one.path for one in staged})
        experiment = ExperimentConfig.model_validate(spec)
        read = cache(read_annotations)
        for stage in self.run.plan.stages:
            if stage.runs_action:
                check_sources(experiment, stage.action, Checks(stage.launch.engine, read=read))

    def _interrupted(self) -> Verdict:
        assert self.stop.signum is not None
        end = Witnesses(
            ExitCode.INTERRUPTED,
            interruption=self.why(self.stop.signum).why,
            resume_from="what is in the cache",
            progressed=True,
        )
        return decide(self.of_this_job(end))

    def _tell(self, progress: Progress) -> None:
        """Tell those who watch, and now and then the log."""
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + _SAY_EVERY_S
            say(str(progress))
        if now >= self._next_look:
            self._next_look = now + _TELL_EVERY_S
            self.note(lambda: self._write(progress))

    def _write(self, progress: Progress) -> None:
        moment = datetime.now(timezone.utc).isoformat()
        start = StartTimes(self.allocation.restart, moment, {})
        live = Live(
            claim=self.attempt.start.claim,
            device="cpu",
            phase=str(progress),
            start=start,
            step=progress.bytes,
            steps=progress.size,
        )
        write_live(self.attempt.results.path, live)
        say_alive(self.run, self.task)
