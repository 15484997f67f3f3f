"""Slurm and this machine, behind one small interface."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtdetr_slurm.contract import JOBS_DIR
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.local.processes import local_job, process_facts, stop_runner
from rtdetr_slurm.local.start import start_runner
from rtdetr_slurm.plan.model import Plan, Stage, StageTask
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import job_id_of, recorded_end, task_events
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.parse import JobInfo
from rtdetr_slurm.slurm.script import batch_parameters

if TYPE_CHECKING:
    from rtdetr_slurm.slurm.executor import BatchExecutor


@dataclass(frozen=True)
class OpenTask:
    """A task without a recorded end, with its job id and its events."""

    task: StageTask
    job_id: str
    events: Sequence[Event]


class Backend(Protocol):
    """Where the jobs of a run go."""

    def submit(self, run: Run, stage: Stage, after: Sequence[tuple[str, str]]) -> str:
        """Queue a stage behind (kind, job id) of others; returns its job id."""

    def facts(self, job_id: str) -> dict[str, Any]:
        """What the `submitted` event holds besides the job id."""

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        """What the scheduler says about the job of each task; None where it does not know it."""

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        """End jobs, queued or running."""


class SlurmBackend:
    """One job, or job array, per stage; dependencies are Slurm's own."""

    def submit(self, run: Run, stage: Stage, after: Sequence[tuple[str, str]]) -> str:
        run.job_dir(stage.name).mkdir(exist_ok=True)
        return batch_executor(stage, run.path, run.manifest["name"], after).send()

    def facts(self, job_id: str) -> dict[str, Any]:  # noqa: ARG002
        return {}

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        if not tasks:
            return []
        since = min(_begun(one.events) for one in tasks)
        known = SlurmClient().jobs([one.job_id for one in tasks], since)
        return [known.get(one.job_id) for one in tasks]

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        SlurmClient().scancel([open_task.job_id for open_task in tasks])


class LocalBackend:
    """A runner per run, which takes all its stages; the job id of each is the runner's."""

    def __init__(self) -> None:
        self._runners: dict[Path, str] = {}

    def submit(self, run: Run, stage: Stage, after: Sequence[tuple[str, str]]) -> str:  # noqa: ARG002
        if run.path not in self._runners:
            for one in run.plan.stages:
                run.job_dir(one.name).mkdir(exist_ok=True)
            self._runners[run.path] = start_runner(run)
        return self._runners[run.path]

    def facts(self, job_id: str) -> dict[str, Any]:
        return process_facts(job_id)

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        found: list[JobInfo | None] = []
        for one in tasks:
            submitted = _submitted(one.events)
            started = any(event["event"] == "started" for event in one.events)
            job = None if submitted is None else local_job(submitted, one.job_id, started=started)
            found.append(job)
        return found

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        runners = {e["job_id"]: e for one in tasks if (e := _submitted(one.events))}
        for submitted in runners.values():
            stop_runner(submitted)


def backend_of(plan: Plan) -> Backend:
    """The backend that all stages of a plan go to."""
    scheduler = plan.stages[0].launch.scheduler
    if scheduler == "slurm":
        return SlurmBackend()
    if scheduler == "local":
        return LocalBackend()
    raise SiteError(f"there is no scheduler '{scheduler}'; allowed: slurm, local")


def open_tasks(run: Run, events: Sequence[Event]) -> Iterator[OpenTask]:
    """The tasks that have a job and no recorded end."""
    for task in run.plan.tasks():
        own = task_events(events, task)
        job_id = job_id_of(own, task)
        if job_id is not None and recorded_end(own) is None:
            yield OpenTask(task, job_id, own)


def scripts(plan: Plan, run_dir: Path, name: str | None) -> dict[str, str]:
    """The batch script of each stage, as it would be sent; none for this machine. Touches nothing.

    Job ids of dependencies, which only sbatch gives out, are shown as the stages' names.
    """
    texts = {}
    for stage in plan.stages:
        if stage.launch.scheduler == "slurm":
            after = [(d.kind, f"<{d.on}>") for d in stage.depends_on]
            texts[stage.name] = batch_executor(stage, run_dir, name, after).script()
    return texts


def batch_executor(
    stage: Stage, run_dir: Path, name: str | None, after: Sequence[tuple[str, str]]
) -> BatchExecutor:
    """What writes and sends the batch script of a stage, behind (kind, job id) of others."""
    from rtdetr_slurm.slurm.executor import BatchExecutor  # submitit is slow to import

    command = [sys.executable, "-u", "-m", "rtdetr_slurm.launch", str(run_dir), stage.name]
    parameters = batch_parameters(
        stage,
        chdir=str(run_dir),
        comment=token(run_dir.name, stage.name),
        job_name=name or f"rtdetr-{stage.name}",
        after=after,
    )
    return BatchExecutor(run_dir / JOBS_DIR / stage.name, command, parameters)


def token(run_id: str, stage: str) -> str:
    """What marks a job as this stage of this run, in the job's comment."""
    return f"rtdetr-slurm:{run_id}:{stage}"


def _begun(events: Sequence[Event]) -> str:
    """When a task was submitted, as sacct takes it: local time."""
    moment = datetime.fromisoformat(events[0]["timestamp"]).astimezone()
    return moment.strftime("%Y-%m-%dT%H:%M:%S")


def _submitted(events: Sequence[Event]) -> Event | None:
    return next((event for event in events if event["event"] == "submitted"), None)
