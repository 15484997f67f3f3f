"""Jobs of the local site: the process that runs a chain, known by id and start time."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.processes import is_alive
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import job_id_of, recorded_end, task_events
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.states import GONE


def runner_is_alive(submitted: Mapping[str, Any]) -> bool | None:
    """Whether the process of a `submitted` event lives; None on another machine than its own."""
    return is_alive(str(submitted["job_id"]), submitted)


def local_job(
    events: Sequence[Event], job_id: str, started_here: Mapping[str, Any] | None = None
) -> JobInfo | None:
    """A stage as its runner has it: waiting for its turn, running, or over; None where that cannot
    be known here.

    Args:
        events: of the stage, or of the task of its array.
        job_id: its own.
        started_here: the runner's facts where no event tells them.
    """
    submitted = submission_of(events) or started_here
    if submitted is None:
        return _without_a_runner(events)
    alive = runner_is_alive(submitted)
    if alive is None:
        return None
    job_id = job_id or str(submitted["job_id"])
    started = next((event for event in reversed(events) if event["event"] == "started"), None)
    if started is None:
        return JobInfo(job_id, "PENDING" if alive else "ENDED", source="local")
    # A stage that runs outlives its runner, if only to write down its end.
    alive = alive or is_alive(str(started.get("pid")), started)
    return JobInfo(job_id, "RUNNING" if alive else "ENDED", source="local")


def _without_a_runner(events: Sequence[Event]) -> JobInfo | None:
    """Of a stage of whose runner nothing is on record: there is none once who sent it is dead, for
    a runner that starts says so itself, and one that starts too late does nothing."""
    sent = next((event for event in reversed(events) if event["event"] == "submitting"), None)
    dead = sent is not None and is_alive(str(sent.get("pid")), sent) is False
    return JobInfo("", GONE, source="local") if dead else None


def local_jobs(run: Run, events: Sequence[Event]) -> dict[str, JobInfo]:
    """Task name → job, of the tasks without a recorded end; a dead runner's show as over."""
    jobs = {}
    for task in run.plan.tasks():
        own = task_events(events, task)
        job_id = job_id_of(own, task)
        if job_id and recorded_end(own) is None and (job := local_job(own, job_id)):
            jobs[task.name] = job
    return jobs


def submission_of(events: Sequence[Event]) -> Event | None:
    """The `submitted` event of a stage, which says who its runner is."""
    return next((event for event in events if event["event"] == "submitted"), None)


def stop_runner(submitted: Mapping[str, Any]) -> None:
    """Ask the runner of a chain to end; one that has ended already is no error.

    Raises:
        SiteError: it runs on another machine, or is another user's.
    """
    alive = runner_is_alive(submitted)
    if alive is None:
        raise SiteError(f"the job runs on {submitted.get('host')}; cancel it there")
    if not alive:
        return
    try:
        os.kill(int(submitted["job_id"]), signal.SIGTERM)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise SiteError(f"process {submitted['job_id']} is another user's") from error
