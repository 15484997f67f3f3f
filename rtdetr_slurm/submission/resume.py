"""Going on with a run that has stopped: what is missing of it is sent once more, in its own folder
and as it was frozen."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from rtdetr_slurm.contract import CONTROLLER_ZIP, JOBS_DIR, LAUNCH_VERSION, SUMMARY_JSON, Env
from rtdetr_slurm.encryption import key_problem, read_key
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.limits import check_limits
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import exists
from rtdetr_slurm.runs.checkpoints import resume_candidates
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import unset_secrets
from rtdetr_slurm.runs.state import (
    StageState,
    cluster_of,
    is_given_up,
    is_to_end,
    job_id_of,
    next_start,
    task_events,
    times_sent,
)
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.site.discover import administrators_site
from rtdetr_slurm.site.variables import notes_on_unset
from rtdetr_slurm.slurm.job_ids import array_of
from rtdetr_slurm.submission.backends import backend_of
from rtdetr_slurm.submission.cancel import found_jobs
from rtdetr_slurm.submission.controller import write_controller
from rtdetr_slurm.submission.sending import OpenTask, Sending, being_sent, open_tasks
from rtdetr_slurm.submission.submit import Overtaken, send
from rtdetr_slurm.submission.survey import survey_run

Job = Mapping[str, Any]
"""What is known of a job: its id, and its cluster where there are several."""
_LIVE = frozenset({StageState.QUEUED, StageState.RUNNING})


@dataclass(frozen=True)
class Missing:
    """What of a run is to be sent, and what that waits for.

    Attributes:
        sendings: in the plan's order.
        jobs: by stage, those that have yet to end and are left alone; none of one that has
            succeeded.
    """

    sendings: Sequence[Sending]
    jobs: Mapping[str, Sequence[Job]]


def resume_run(
    run: Run,
    *,
    again: bool = False,
    reopened: Collection[str] = (),
    on_note: Callable[[str], object] = lambda _: None,
) -> dict[str, str]:
    """Queue the stages that have neither succeeded nor wait or run; returns stage name → job id,
    nothing where none is missing.

    A training goes on from its furthest checkpoint.

    Args:
        again: also where another run that does the same is under way.
        reopened: stages that have something to do again though they have succeeded.
        on_note: is told what its jobs will not have, before they are sent.

    Raises:
        RequestError: the run is another user's or of an older version, it is being submitted or
            cancelled, or as `send`.
        SiteError: as `send`, the administrator's limits are exceeded, or the scheduler does not say
            what is left of the run.
    """
    if not run.is_own:
        raise RequestError(f"{run.id} is {run.manifest.user}'s, and is not yours to resume")
    if run.manifest.launch_version < LAUNCH_VERSION:
        raise RequestError(
            f"{run.id} was submitted by an older version, whose jobs cannot be counted on from "
            "where they ended: submit again with train.resume_training_checkpoint_path"
        )
    _hold_limits(run)
    with suppress(FileNotFoundError):
        (run.path / SUMMARY_JSON).unlink()  # it has not ended for good
    before = run.events()
    report, notes = survey_run(run.path)
    events = run.events()
    if times_sent(events) != times_sent(before):  # the report may not know of it
        raise Overtaken(f"{run.id} has just been submitted by another process")
    _see_that_it_stands_still(run, report, events, notes)
    missing = find_missing(run, report, events, reopened)
    if not missing.sendings:
        return {}
    _see_that_nothing_outlives_its_runner(run, missing)
    key = _find_key(run, missing)
    for note in _notes_on_secrets(run, missing):
        on_note(note)
    if not exists(run.path / JOBS_DIR / CONTROLLER_ZIP):  # `submit` was killed before it made it
        write_controller(run)
    _end_what_is_left(run, missing, events)
    sendings = [replace(one, key=key) for one in missing.sendings]
    return send(run, sendings, missing.jobs, again=again, known=events)


def _find_key(run: Run, missing: Missing) -> str | None:
    """The key of an encrypted run where the environment has it; None where it was kept, or where
    there is none.

    Raises:
        RequestError: it is neither here nor there, or does not open what the run has left.
    """
    stages = [
        one.stage for one in missing.sendings if Env.ENCRYPTION_KEY in one.stage.launch.secrets
    ]
    if not stages:
        return None
    given = os.environ.get(Env.ENCRYPTION_KEY)
    key = read_key(given) if given else None
    if key is None and Env.ENCRYPTION_KEY in unset_secrets(run.path, stages[0], {}):
        raise RequestError(
            f"{run.id} encrypts its model files, and its key is gone, as that of every run that "
            f"has ended: give it in the environment as {Env.ENCRYPTION_KEY}"
        )
    if key is not None:
        for folder in {task.results_dir for task in run.plan.tasks()}:
            for file in resume_candidates(folder)[:1]:
                if problem := key_problem(file.path, key):
                    raise RequestError(problem)
    return key


def _notes_on_secrets(run: Run, missing: Missing) -> Iterator[str]:
    stages = [one.stage for one in missing.sendings if one.stage.launch.scheduler != "local"]
    unset = (
        name
        for stage in stages
        for name in unset_secrets(run.path, stage, os.environ)
        if name != Env.ENCRYPTION_KEY
    )
    return notes_on_unset(dict.fromkeys(unset))


def _hold_limits(run: Run) -> None:
    """See that the plan, which is a file of the user's and may be old, keeps within what the
    administrator allows now."""
    site = administrators_site(os.environ)
    if site is not None and run.plan.stages[0].launch.scheduler == "slurm":
        check_limits(run.plan.stages, site)


def find_missing(
    run: Run, report: RunReport, events: Sequence[Event], reopened: Collection[str] = ()
) -> Missing:
    """What a run that stands still lacks. Pure.

    Args:
        reopened: stages that have something to do again though they have succeeded.

    Raises:
        RequestError: a stage is at work on what is about to become something else.
    """
    reports = {one.name: one for one in report.stages}
    sendings: list[Sending] = []
    jobs: dict[str, Sequence[Job]] = {}
    sent: set[str] = set()
    renewed = {*reopened}
    for stage in run.plan.stages:
        tasks = [(task, reports[task.name]) for task in stage.tasks()]
        before = [d for d in stage.depends_on if d.on.run is None and d.on.stage in sent]
        # What came after something that had failed, or has succeeded with what that had left, has
        # not seen what comes now.
        outdated = any(d.kind == "afterany" or d.on.stage in renewed for d in before)
        if outdated:
            renewed.add(stage.name)
            _see_that_it_rests(run, tasks)
        # What waits for a job that is gone, or for one that has failed, waits in vain.
        live = {StageState.RUNNING} if before else _LIVE
        well = live if stage.name in renewed else {StageState.SUCCESS, *live}
        lacking = [
            (task, one)
            for task, one in tasks
            if one.state not in well and (stage.name in renewed or not one.done_without)
        ]
        if lacking:
            whole = len(lacking) == len(tasks)
            numbers = None if whole else tuple(task.index or 0 for task, _ in lacking)
            first = next_start(events, stage.name)
            sendings.append(Sending(stage, first, numbers, _why(lacking[0][1])))
            sent.add(stage.name)
        left = [(task, one) for task, one in tasks if (task, one) not in lacking]
        jobs[stage.name] = _live_jobs(left, events)
    return Missing(sendings, jobs)


def _live_jobs(
    tasks: Sequence[tuple[StageTask, StageReport]], events: Sequence[Event]
) -> list[Job]:
    """The jobs of tasks that have not succeeded yet, an array as one."""
    found = {
        array_of(one.job_id or ""): cluster_of(task_events(events, task))
        for task, one in tasks
        if one.state in _LIVE
    }
    return [{"job_id": job_id, "cluster": cluster} for job_id, cluster in found.items()]


def _see_that_it_rests(run: Run, tasks: Sequence[tuple[StageTask, StageReport]]) -> None:
    for _, one in tasks:
        if one.state is StageState.RUNNING:
            raise RequestError(
                f"{run.id}: {one.name} is at work on what there is so far; resume the run when it "
                "has ended"
            )


def _why(report: StageReport) -> str:
    if report.state is StageState.SUCCESS:
        return "there is more for it to do"
    reason = report.failure.evidence if report.failure else report.detail
    return f"{report.state.value}: {reason}" if reason else report.state.value


def _see_that_it_stands_still(
    run: Run, report: RunReport, events: Sequence[Event], notes: Sequence[str]
) -> None:
    """See that nobody is at work on the run, and that what is left of it is known."""
    sent = open_tasks(run, events)
    if sender := being_sent(sent):
        raise RequestError(
            f"{run.id} is being submitted by process {sender.get('pid')} on {sender.get('host')}"
        )
    reports = {one.name: one for one in report.stages}
    for one in sent:
        found = reports[one.task.name]
        if found.state in _LIVE and is_to_end(one.events):
            raise RequestError(f"{run.id}: {found.name} is being cancelled, and has not ended yet")
        if found.state is StageState.UNKNOWN and found.job is None and not is_given_up(one.events):
            why = "; ".join(notes) or "its process is another machine's"
            raise SiteError(f"{run.id}: whether {found.name} waits or runs cannot be told: {why}")


def _see_that_nothing_outlives_its_runner(run: Run, missing: Missing) -> None:
    """On this machine a stage ends some time after its runner was killed, and another runner cannot
    wait for it: it would start it a second time."""
    running = [name for name, jobs in missing.jobs.items() if jobs]
    if running and run.plan.stages[0].launch.scheduler == "local":
        raise RequestError(f"{run.id}: {', '.join(running)} has not ended yet; resume it then")


def _end_what_is_left(run: Run, missing: Missing, events: Sequence[Event]) -> None:
    """End the jobs in whose place others come: what waits in vain, what is about to end."""
    backend = backend_of(run.plan)
    tasks = [task for one in missing.sendings for task in one.its_tasks()]
    known = [(task, task_events(events, task)) for task in tasks]
    old = [OpenTask(run, task, job_id_of(own, task), own) for task, own in known if own]
    if left := found_jobs(backend, old):
        backend.cancel(left)
