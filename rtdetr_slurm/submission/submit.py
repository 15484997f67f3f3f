"""Sending a run's stages off, each exactly once."""

from __future__ import annotations

import time
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Dependency, Stage
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import StageState, job_id_of, recorded_end, task_events
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.job_ids import array_of
from rtdetr_slurm.submission.backends import Backend, backend_of, open_tasks, token

_LOOKS, _LOOK_EVERY_S = 4, 3.0


def submit_run(run: Run) -> dict[str, str]:
    """Submit every stage; returns stage name → job id.

    When a stage is refused, those already queued are cancelled, and the record says so.

    Raises:
        SubmissionRefused: the scheduler refused a stage.
        SlurmUnreachable: sbatch's answer was unclear, and so is whether the job exists.
        SiteError: the local job did not start.
    """
    backend = backend_of(run.plan)
    jobs: dict[str, str] = {}
    for stage in run.plan.stages:
        try:
            jobs[stage.name] = _submit_stage(run, stage, backend, jobs)
        except SiteError as error:
            _withdraw(run, stage, error)
            raise
    return jobs


def _submit_stage(run: Run, stage: Stage, backend: Backend, jobs: dict[str, str]) -> str:
    mark = token(run.id, stage.name)
    after = [(d.kind, job_id) for d in stage.depends_on if (job_id := _job_of(d, jobs))]
    run.record("submitting", stage=stage.name, token=mark)
    try:
        job_id = backend.submit(run, stage, after)
    except SlurmUnreachable as error:
        job_id = _reconciled(run, stage, mark, error)
    except SiteError as error:
        run.record("refused", stage=stage.name, reason=str(error))
        raise
    run.record("submitted", stage=stage.name, job_id=job_id, **backend.facts(job_id))
    return job_id


def _job_of(dependency: Dependency, jobs: dict[str, str]) -> str | None:
    """The job that a dependency is on; None for one that has ended well already.

    Slurm forgets ended jobs, and a dependency on one that it does not know is refused.
    """
    if dependency.on.run is None:
        return jobs[dependency.on.stage]
    other = open_run(Path(dependency.on.run))
    [task] = other.plan.stage(dependency.on.stage).tasks()
    own = task_events(other.events(), task)
    end = recorded_end(own)
    ended_well = end is not None and end["state"] == StageState.SUCCESS.value
    return None if ended_well else job_id_of(own, task)


def _withdraw(run: Run, refused: Stage, error: SiteError) -> None:
    """Take back what was queued before a stage was refused, and what would have come after it."""
    reason = f"stage {refused.name} was refused: {error}"
    for stage in run.plan.stages:
        if stage is not refused:
            run.record("withdrawn", stage=stage.name, reason=reason)
    if queued := list(open_tasks(run, run.events())):
        backend_of(run.plan).cancel(queued)
    keep_summary(run)


def _reconciled(run: Run, stage: Stage, mark: str, unclear: SlurmUnreachable) -> str:
    """The id of the job that an unclear sbatch did queue, found by its token."""
    found_none = ""
    for _ in range(_LOOKS):  # a controller too slow to answer may also be slow to list the job
        try:
            found = sorted(set(map(array_of, SlurmClient().find_by_comment(mark))))
        except SiteError as error:
            found_none = f"; nor can the queue be asked ({error})"
        else:
            if len(found) == 1:
                return found[0]
            found_none = f"; the queue shows {len(found)} jobs with the comment '{mark}'"
        time.sleep(_LOOK_EVERY_S)
    run.record("unclear", stage=stage.name, reason=str(unclear))
    raise SlurmUnreachable(
        f"{unclear}{found_none}. The job is not sent again, lest it run twice: look for that "
        f"comment in `squeue --me -o '%i %k'`; if nothing shows up, submit once more "
        f"(run folder: {run.path})"
    )
