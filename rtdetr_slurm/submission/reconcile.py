"""Record and queue agree again after a submission that failed, or whose outcome is unclear."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.slurm.job_ids import array_of
from rtdetr_slurm.submission.backends import Backend
from rtdetr_slurm.submission.cancel import found_jobs
from rtdetr_slurm.submission.sending import OpenTask, Sending, open_tasks

LOOK_FOR_S, LOOK_EVERY_S = 30.0, 3.0
"""A controller that was too slow to answer sbatch may also be slow to queue the job."""


def withdraw(
    run: Run,
    backend: Backend,
    sendings: Sequence[Sending],
    reason: str,
    but: Sending | None = None,
) -> str:
    """Take back what was queued, and what would have come after it; returns what became of that.

    What could not be taken back ends as soon as it starts: the record says so.

    Args:
        but: the one whose own record says already that it came to nothing.
    """
    for one in sendings:
        if one is not but:
            note(run, "withdrawn", **one.facts(), reason=reason)
    jobs = "nobody knows what"
    names = {one.stage.name for one in sendings}
    try:
        sent = [one for one in open_tasks(run, run.events()) if one.task.stage.name in names]
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


def note(run: Run, event: str, **data: Any) -> None:
    """Write down what the user is told anyway; a full disk must not keep the rest from it."""
    with suppress(OSError):
        run.record(event, **data)


def adopted(run: Run, one: Sending, backend: Backend, unclear: SlurmUnreachable) -> str:
    """The id of the job that an unclear sbatch did queue, found by its token."""
    looked = ""
    give_up = time.monotonic() + LOOK_FOR_S
    while time.monotonic() < give_up:
        ours = [task for task in open_tasks(run, run.events()) if task.task.stage is one.stage]
        try:
            found = [job.job_id for job in backend.jobs(ours) if job and not job.gone]
        except SiteError as error:
            looked = f"; nor can the queue be asked ({error})"
        else:
            if found:
                return array_of(found[0])
            looked = "; Slurm has no job with its token"
        time.sleep(LOOK_EVERY_S)
    note(run, "unclear", **one.facts(), reason=str(unclear))
    raise SlurmUnreachable(
        f"{unclear}{looked}. The job is not sent again, lest it run twice: should it turn up "
        f"after all (comment '{one.token(run)}' in `squeue --me -o '%i %k'`), it ends "
        f"as soon as it starts, so send it with `rtdetr-slurm resume {run.path}`"
    )
