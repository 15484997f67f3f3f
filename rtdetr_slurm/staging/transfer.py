"""What the stages that move files have in common: they run on the host, with what is installed
there, tell how far they are, and can be interrupted."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.installed import see_installed
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Verdict, Witnesses, decide
from rtdetr_slurm.runs.alive import say_alive
from rtdetr_slurm.runs.live import Live, StartTimes, write_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import secrets_of
from rtdetr_slurm.staging.progress import Stopped

_TELL_EVERY_S, _SAY_EVERY_S = 5.0, 60.0


class TransferRun(StageRun):
    """One start of such a stage.

    Args:
        python_path: where the libraries were when the run was submitted.
    """

    def __init__(
        self, run: Run, allocation: Allocation, stop: StopRequest, python_path: Sequence[str]
    ) -> None:
        super().__init__(run, allocation, stop)
        self._python_path = python_path
        self._next_look = self._next_line = 0.0

    @abstractmethod
    def transfer(self) -> Verdict:
        """Move the files.

        Raises:
            Stopped: as `stopped` asked.
            UserError: that cannot be done.
        """

    def prepare(self) -> None:
        launch = self.task.stage.launch
        os.environ |= {name: value for name, value in launch.env.items() if value is not None}
        os.environ |= secrets_of(self.run.path, self.task.stage)
        see_installed(self._python_path, "boto3")
        results = self.attempt.results
        results.make()
        results.look()
        results.take(self.run.spec)

    def work(self) -> Verdict:
        try:
            return self.transfer()
        except Stopped:
            assert self.stop.signum is not None
            end = Witnesses(
                ExitCode.INTERRUPTED,
                interruption=self.why(self.stop.signum).why,
                resume_from="what has come so far",
                progressed=True,
            )
            return decide(self.of_this_job(end))

    def end_facts(self, verdict: Verdict) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def after_end(self) -> None:
        pass

    def stopped(self) -> bool:
        """Whether it has been asked to end."""
        return self.stop.signum is not None

    def tell(self, progress: object) -> None:
        """Tell those who watch how far it is, and now and then the log."""
        what = str(progress)
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + _SAY_EVERY_S
            say(what)
        if now >= self._next_look:
            self._next_look = now + _TELL_EVERY_S
            self.note(lambda: self._write(what))

    def _write(self, what: str) -> None:
        moment = datetime.now(timezone.utc).isoformat()
        start = StartTimes(self.allocation.restart, moment, {})
        live = Live(self.attempt.start.claim, device="cpu", phase=what, start=start)
        write_live(self.attempt.results.path, live)
        say_alive(self.run, self.task)
