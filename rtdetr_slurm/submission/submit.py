"""Sending a run's stages off, each exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import RequestError, SiteError, UserError, explained
from rtdetr_slurm.plan.model import Dependency, Stage
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import (
    StageState,
    cluster_of,
    is_to_end,
    job_id_of,
    recorded_end,
    task_events,
)
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.job_ids import array_of
from rtdetr_slurm.submission.backends import Backend, OpenTask, backend_of, open_tasks, token
from rtdetr_slurm.submission.cancel import found_jobs
from rtdetr_slurm.submission.claims import Taken, claim_results, release_results

_LOOK_FOR_S, _LOOK_EVERY_S = 30.0, 3.0
"""A controller that was too slow to answer sbatch may also be slow to queue the job."""

Facts = Mapping[str, Any]
"""What is known of a submitted job: its id, and what the back end adds."""


def submit_run(run: Run) -> dict[str, str]:
    """Claim the results folders and submit every stage; returns stage name → job id.

    When a stage is refused, or submitting is interrupted, what was queued is cancelled, the
    folders are as they were, and the record says so.

    Raises:
        RequestError: another run uses a results folder.
        SubmissionRefused: the scheduler refused a stage.
        SlurmUnreachable: sbatch's answer was unclear, and no job of it was found.
        SiteError: the local job did not start, the run was cancelled meanwhile, or a file of the
            run cannot be written; it says what became of the stages queued before.
    """
    backend = backend_of(run.plan)
    claims: list[Taken] = []
    jobs: dict[str, Facts] = {}
    try:
        for stage in run.plan.stages:
            with _taken_back(run, stage, backend):
                claims += _claim_stage(run, stage)
        for stage in run.plan.stages:
            with _taken_back(run, stage, backend):
                jobs[stage.name] = _submit_stage(run, stage, backend, jobs)
    except BaseException:
        release_results(claims)
        raise
    return {name: facts["job_id"] for name, facts in jobs.items()}


@contextmanager
def _taken_back(run: Run, stage: Stage, backend: Backend) -> Iterator[None]:
    """Where a stage cannot be submitted, the whole run is taken back."""
    try:
        yield
    except (UserError, OSError) as error:
        problem = explained(error)
        refused = stage if problem is error else None
        taken_back = _withdraw(run, backend, f"stage {stage.name}: {problem}", but=refused)
        if taken_back or refused is None:
            what = taken_back or "nothing is queued"
            problem.args = (f"{problem}; {what} (run folder: {run.path})",)
        if problem is error:
            raise
        raise problem from error
    except BaseException as error:
        taken_back = _withdraw(run, backend, "its submission was interrupted")
        if isinstance(error, KeyboardInterrupt) and taken_back:
            error.args = (f"{taken_back} (run folder: {run.path})",)
        raise


def _claim_stage(run: Run, stage: Stage) -> list[Taken]:
    try:
        return claim_results(run, stage)
    except RequestError as error:
        _note(run, "refused", stage=stage.name, reason=str(error))
        raise


def _submit_stage(run: Run, stage: Stage, backend: Backend, jobs: Mapping[str, Facts]) -> Facts:
    mark = token(run.id, stage.name)
    run.record("submitting", stage=stage.name, token=mark)
    try:
        after = [(d.kind, one) for d in stage.depends_on if (one := _job_of(d, jobs, backend))]
        facts = backend.submit(run, stage, after)
    except SlurmUnreachable as error:
        facts = {"job_id": _reconciled(run, stage, backend, error)}
    except SiteError as error:
        _note(run, "refused", stage=stage.name, reason=str(error))
        raise
    run.record("submitted", stage=stage.name, **facts)
    if any(is_to_end(task_events(run.events(), task)) for task in stage.tasks()):
        raise SiteError(f"{run.id} was cancelled while it was being submitted")
    return facts


def _job_of(dependency: Dependency, jobs: Mapping[str, Facts], backend: Backend) -> Facts | None:
    """The job that a dependency is on; None for one that has ended well already.

    Slurm forgets ended jobs, and a dependency on one that it does not know is refused.

    Raises:
        SiteError: nobody knows the job of a stage of another run (any more).
    """
    if dependency.on.run is None:
        return jobs[dependency.on.stage]
    other = open_run(Path(dependency.on.run))
    events = other.events()
    [task] = other.plan.stage(dependency.on.stage).tasks()
    own = task_events(events, task)
    if (end := recorded_end(own)) is not None:
        ended_well = end["state"] == StageState.SUCCESS.value
        return None if ended_well else {"job_id": job_id_of(own, task)}
    asked = [one for one in open_tasks(other, events) if one.task == task]
    try:
        found = [job for job in backend.jobs(asked) if job is not None and not job.gone]
    except SlurmUnreachable as error:  # nothing has been sent, so nothing is unclear
        raise SiteError(f"{dependency.on} cannot be waited for: {error}") from error
    if not found:
        raise SiteError(f"{dependency.on} has no job that could be waited for")
    return {"job_id": found[0].job_id, "cluster": cluster_of(own)}


def _withdraw(run: Run, backend: Backend, reason: str, but: Stage | None = None) -> str:
    """Take back what was queued, and what would have come after it; returns what became of that.

    What could not be taken back ends as soon as it starts: the record says so.

    Args:
        but: the stage whose own record says already that it came to nothing.
    """
    for stage in run.plan.stages:
        if stage is not but:
            _note(run, "withdrawn", stage=stage.name, reason=reason)
    jobs = "nobody knows what"
    try:
        sent = open_tasks(run, run.events())
        jobs = _listed(sent)
        queued = found_jobs(backend, sent)
        jobs = _listed(queued)
        if queued:
            backend.cancel(queued)
    except UserError as error:
        return f"what was queued before ({jobs}) could not be cancelled: {error}"
    with suppress(OSError):
        keep_summary(run)
    return f"what was queued before has been cancelled: {jobs}" if queued else ""


def _listed(tasks: Sequence[OpenTask]) -> str:
    return ", ".join(f"{one.task.name}: job {one.job_id or 'unknown'}" for one in tasks)


def _note(run: Run, event: str, **data: Any) -> None:
    """Write down what the user is told anyway; a full disk must not keep the rest from it."""
    with suppress(OSError):
        run.record(event, **data)


def _reconciled(run: Run, stage: Stage, backend: Backend, unclear: SlurmUnreachable) -> str:
    """The id of the job that an unclear sbatch did queue, found by its token."""
    looked = ""
    give_up = time.monotonic() + _LOOK_FOR_S
    while time.monotonic() < give_up:
        ours = [one for one in open_tasks(run, run.events()) if one.task.stage is stage]
        try:
            found = [job.job_id for job in backend.jobs(ours) if job and not job.gone]
        except SiteError as error:
            looked = f"; nor can the queue be asked ({error})"
        else:
            if found:
                return array_of(found[0])
            looked = "; Slurm has no job with its token"
        time.sleep(_LOOK_EVERY_S)
    _note(run, "unclear", stage=stage.name, reason=str(unclear))
    raise SlurmUnreachable(
        f"{unclear}{looked}. The job is not sent again, lest it run twice: should it turn up "
        f"after all (comment '{token(run.id, stage.name)}' in `squeue --me -o '%i %k'`), it ends "
        f"as soon as it starts, so submit once more (run folder: {run.path})"
    )
