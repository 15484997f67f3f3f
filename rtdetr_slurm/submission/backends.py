"""Slurm and this machine, behind one small interface."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rtdetr_slurm.contract import JOBS_DIR
from rtdetr_slurm.files import PRIVATE_DIR
from rtdetr_slurm.local.processes import local_job, stop_runner, submission_of
from rtdetr_slurm.local.start import start_runner
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.run import Run, stage_command
from rtdetr_slurm.runs.secrets import keep_secrets
from rtdetr_slurm.runs.state import cluster_of
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.identity import Sought
from rtdetr_slurm.slurm.script import batch_parameters
from rtdetr_slurm.submission.sending import OpenTask, Sending, token

if TYPE_CHECKING:
    from rtdetr_slurm.slurm.executor import BatchExecutor


class Backend(Protocol):
    """Where the jobs of a run go."""

    def submit(
        self,
        run: Run,
        sending: Sending,
        after: Sequence[tuple[str, Mapping[str, Any]]],
        cluster: str | None,
    ) -> dict[str, Any]:
        """Queue a stage behind (kind, facts) of others, on a cluster where that is known; returns
        its facts, which the `submitted` event holds: `job_id`, and what else is needed to find the
        job again."""

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        """What the scheduler says about the job of each task; None where it cannot say anything.

        Raises:
            SiteError: it cannot be asked.
        """

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        """End jobs, queued or running, each under the id that `jobs` has found it by.

        Raises:
            SiteError: the scheduler refuses.
        """


class SlurmBackend:
    """One job, or job array, per stage; dependencies are Slurm's own."""

    def submit(
        self,
        run: Run,
        sending: Sending,
        after: Sequence[tuple[str, Mapping[str, Any]]],
        cluster: str | None,
    ) -> dict[str, Any]:
        run.job_dir(sending.stage.name).mkdir(mode=PRIVATE_DIR, exist_ok=True)
        ids = [(kind, facts["job_id"]) for kind, facts in after]
        keep_secrets(run.path, sending.stage, sending.secrets(os.environ))
        executor = batch_executor(sending, run.path, run.manifest.name, ids)
        queued = executor.send(cluster, sending.stage.launch.secrets)
        return {
            "job_id": queued.job_id,
            **({"cluster": queued.cluster} if queued.cluster else {}),
        }

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        found: dict[int, JobInfo | None] = {}
        for (cluster, uid), numbers in _by_place(tasks).items():
            sought = [_sought(tasks[number]) for number in numbers]
            jobs: Sequence[JobInfo | None]
            if uid is None:
                jobs = SlurmClient(cluster).find(sought)
            else:
                jobs = _of_another_user(SlurmClient(cluster, uid), sought)
            found.update(zip(numbers, jobs, strict=True))
        return [found[number] for number in range(len(tasks))]

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        for (cluster, _), numbers in _by_place(tasks).items():
            SlurmClient(cluster).scancel([tasks[number].job_id or "" for number in numbers])


class LocalBackend:
    """A runner per run, which takes all its stages; the job id of each is the runner's."""

    def __init__(self) -> None:
        self._runners: dict[Path, dict[str, Any]] = {}
        """By run, what tells the runner that was started here, written down or not."""

    def submit(
        self,
        run: Run,
        sending: Sending,
        after: Sequence[tuple[str, Mapping[str, Any]]],  # noqa: ARG002
        cluster: str | None,  # noqa: ARG002
    ) -> dict[str, Any]:
        if run.path not in self._runners:
            for one in run.plan.stages:
                run.job_dir(one.name).mkdir(mode=PRIVATE_DIR, exist_ok=True)
            if sending.key is not None:
                keep_secrets(run.path, sending.stage, sending.secrets({}))
            pid = start_runner(run, sending.stage.name, sending.first)
            self._runners[run.path] = {"job_id": pid, **process_facts(pid)}
        return self._runners[run.path]

    def jobs(self, tasks: Sequence[OpenTask]) -> list[JobInfo | None]:
        return [
            local_job(one.events, one.job_id or "", self._runners.get(one.run.path))
            for one in tasks
        ]

    def cancel(self, tasks: Sequence[OpenTask]) -> None:
        for one in {task.run.path: task for task in tasks}.values():
            if runner := submission_of(one.events) or self._runners.get(one.run.path):
                stop_runner(runner)


def backend_of(plan: Plan) -> Backend:
    """The backend that all stages of a plan go to."""
    return SlurmBackend() if plan.stages[0].launch.scheduler == "slurm" else LocalBackend()


def scripts(plan: Plan, run_dir: Path, name: str | None) -> dict[str, str]:
    """The batch script of each stage, as it would be sent; none for this machine. Touches nothing.

    Job ids of dependencies, which only sbatch gives out, are shown as the stages' names.
    """
    texts = {}
    for stage in plan.stages:
        if stage.launch.scheduler == "slurm":
            after = [(d.kind, f"<{d.on}>") for d in stage.depends_on]
            texts[stage.name] = batch_executor(Sending(stage), run_dir, name, after).script()
    return texts


def batch_executor(
    sending: Sending, run_dir: Path, name: str | None, after: Sequence[tuple[str, str]]
) -> BatchExecutor:
    """What writes and sends the batch script of a stage, behind (kind, job id) of others."""
    from rtdetr_slurm.slurm.executor import BatchExecutor  # submitit is slow to import

    stage, first = sending.stage, sending.first
    job_dir = run_dir / JOBS_DIR / stage.name
    parameters = batch_parameters(
        stage,
        chdir=str(run_dir),
        job_dir=str(job_dir),
        comment=token(run_dir.name, stage.name, first),
        job_name=name or f"rtdetr-{stage.name}",
        after=after,
        tasks=sending.tasks,
    )
    return BatchExecutor(job_dir, stage_command(run_dir, stage, first), parameters)


def _by_place(tasks: Sequence[OpenTask]) -> dict[tuple[str | None, int | None], list[int]]:
    """Numbers of tasks by the cluster that they went to, and by whose they are: the owner's of the
    run folder, None for this user's."""
    groups: dict[tuple[str | None, int | None], list[int]] = {}
    for number, one in enumerate(tasks):
        place = cluster_of(one.events), None if one.run.is_own else one.run.owner
        groups.setdefault(place, []).append(number)
    return groups


def _of_another_user(client: SlurmClient, sought: Sequence[Sought]) -> list[JobInfo | None]:
    """Clusters may keep users' jobs from one another: what does not show need not be gone."""
    try:
        return [None if job.gone else job for job in client.find(sought)]
    except SlurmUnreachable:
        return [None] * len(sought)


def _sought(one: OpenTask) -> Sought:
    return Sought(
        token=one.token,
        work_dir=str(one.run.path),
        since=_begun(one.events),
        job_id=one.job_id,
        task=one.task.index,
        not_ids=one.others,
    )


def _begun(events: Sequence[Event]) -> str:
    """When a task was submitted, as sacct takes it: local time."""
    moment = datetime.fromisoformat(events[0]["timestamp"]).astimezone()
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
