"""The place that a stage runs in: this machine alone."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence

from rtdetr_slurm.contract import Env, FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.allocation import KILL_WAIT_S, Allocation, Exclusion, Standing, StopReason
from rtdetr_slurm.plan.model import Resources, Stage, StageTask


class LocalAllocation(Allocation):
    """This machine, under the chain runner of the local site."""

    def __init__(self, stage: Stage, environ: Mapping[str, str], first: int = 0) -> None:
        self.first = self.restart = first
        index = environ.get(Env.LOCAL_TASK)
        self.task = StageTask(stage, None if index is None else int(index))
        self.job_id = self.task.job_id(environ[Env.LOCAL_JOB_ID])

    def prefix(self, resources: Resources) -> list[str]:  # noqa: ARG002
        return []

    def master(self) -> str:
        return "127.0.0.1"

    def check(self) -> None:
        pass  # the plan has made sure of one node; there is no allocation to compare with

    def signal_step(self, process: subprocess.Popen[bytes], signum: int, /) -> None:
        # KILL cannot be handed on by the process it ends, so it goes to the whole group.
        if signum == signal.SIGKILL:
            os.killpg(process.pid, signum)
        else:
            process.send_signal(signum)

    def why_stopped(self, signum: int, _lead_s: int, /) -> StopReason:
        # The chain runner warns with USR2; TERM comes from whoever ends the job.
        timeout = signum == signal.SIGUSR2
        return StopReason(FailureClass.TIMEOUT if timeout else FailureClass.CANCELLED)

    def quietly_preempted(self) -> bool:
        return False

    def mail_first_start_only(self) -> None:
        pass  # this machine sends no mail

    def nodes(self) -> tuple[str, ...]:
        return (os.uname().nodename,)

    def standing(self, job_ids: Collection[str], /) -> dict[str, Standing]:
        # One task after the other runs here, and this is the one that does.
        return {i: Standing.RUNS if i == self.job_id else Standing.ENDED for i in job_ids}

    def dismiss_waiting(self) -> None:
        pass  # nothing waits beside what runs

    def kill_wait_s(self) -> int:
        return KILL_WAIT_S

    def exclusion(self, _bad: Sequence[str], _earlier: Sequence[str], /) -> Exclusion:
        return Exclusion()

    def requeue(self, _exclude: Sequence[str] = (), /) -> None:
        raise SiteError("this machine has no queue")
