"""Sending a run's stages off, each exactly once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import EVENTS_DIR, SUMMARY_JSON
from rtdetr_slurm.errors import RequestError, SiteError, UserError, explained
from rtdetr_slurm.plan.model import Dependency
from rtdetr_slurm.runs.events import Event, record_once
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import (
    StageState,
    cluster_of,
    is_to_end,
    recorded_end,
    task_events,
)
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.slurm.commands import SlurmUnreachable
from rtdetr_slurm.submission import reconcile
from rtdetr_slurm.submission.backends import Backend, backend_of
from rtdetr_slurm.submission.claims import Taken, claim_results, release_results
from rtdetr_slurm.submission.reconcile import adopted, note, withdraw
from rtdetr_slurm.submission.sending import Sending, being_sent, open_tasks
from rtdetr_slurm.submission.studies import make_study
from rtdetr_slurm.submission.twins import find_twin, refusal

Facts = Mapping[str, Any]
"""What is known of a submitted job: its id, and what the back end adds."""


class Overtaken(RequestError):
    """Another process sends the same stage; it is not for this one to take anything back."""


def submit_run(run: Run, *, key: str | None = None, again: bool = False) -> dict[str, str]:
    """Claim the results folders and submit every stage; returns stage name → job id.

    Args:
        key: that its model files are to be encrypted with.
        again: also where a run that does the same is under way.

    Raises:
        RequestError, SubmissionRefused, SlurmUnreachable, SiteError: as `send`.
    """
    return send(run, [Sending(stage, key=key) for stage in run.plan.stages], {}, again=again)


def send(
    run: Run,
    sendings: Sequence[Sending],
    jobs: Mapping[str, Sequence[Facts]],
    *,
    again: bool,
    known: Sequence[Event] = (),
) -> dict[str, str]:
    """Claim the results folders and submit stages; returns stage name → job id.

    When a stage is refused, or submitting is interrupted, what was queued is cancelled, the
    folders are as they were, and the record says so.

    Args:
        jobs: by stage, what else is to end before those that depend on it begin; nothing of one
            that has ended well.
        again: also where a run that does the same is under way.
        known: events of the run that were heeded already; a wish to cancel that is not among them
            holds for all that is sent.

    Raises:
        RequestError: another run uses a results folder, or does the same.
        SubmissionRefused: the scheduler refused a stage.
        SlurmUnreachable: sbatch's answer was unclear, and no job of it was found.
        SiteError: the local job did not start, the run was cancelled meanwhile, or a file of the
            run cannot be written; it says what became of the stages queued before.
    """
    backend = backend_of(run.plan)
    claims: list[Taken] = []
    sent: dict[str, Facts] = {}
    before = {name: [*others] for name, others in jobs.items()}
    alone = again
    try:
        for one in sendings:
            with _taken_back(run, one, sendings, backend):
                claims += _claim_stage(run, one)
                make_study(one)
        for one in sendings:
            with _taken_back(run, one, sendings, backend):
                facts = sent[one.stage.name] = _submit_stage(run, one, backend, before, alone)
                before.setdefault(one.stage.name, []).append(facts)
                alone = True
                _see_that_it_is_wanted(run, one, known)
    except Overtaken:
        raise  # the claims are this run's, and whoever has overtaken this process counts on them
    except BaseException:
        release_results(claims)
        raise
    with suppress(OSError, UserError):
        # Its first stage may have failed before the last one was sent, and with it the run.
        keep_summary(run)
    return {name: facts["job_id"] for name, facts in sent.items()}


@contextmanager
def _taken_back(
    run: Run, one: Sending, sendings: Sequence[Sending], backend: Backend
) -> Iterator[None]:
    """Where a stage cannot be submitted, all that is sent with it is taken back."""
    try:
        yield
    except Overtaken:
        raise
    except (UserError, OSError) as error:
        problem = explained(error)
        refused = one if problem is error else None
        reason = f"stage {one.stage.name}: {problem}"
        taken_back = withdraw(run, backend, sendings, reason, but=refused)
        if taken_back or refused is None:
            what = taken_back or "nothing is queued"
            problem.args = (f"{problem}; {what} (run folder: {run.path})",)
        if problem is error:
            raise
        raise problem from error
    except BaseException as error:
        taken_back = withdraw(run, backend, sendings, "its submission was interrupted")
        if isinstance(error, KeyboardInterrupt) and taken_back:
            error.args = (f"{taken_back} (run folder: {run.path})",)
        raise


def _claim_stage(run: Run, one: Sending) -> list[Taken]:
    try:
        return claim_results(run, one.stage)
    except RequestError as error:
        note(run, "refused", **one.facts(), reason=str(error))
        raise


def _submit_stage(
    run: Run, one: Sending, backend: Backend, jobs: Mapping[str, Sequence[Facts]], alone: bool
) -> Facts:
    """Send one stage.

    Args:
        alone: whether it is known, or of no importance, that nobody sends the same.
    """
    try:
        depends_on = one.stage.depends_on
        after = [(d.kind, job) for d in depends_on for job in _jobs_of(d, jobs, backend)]
        # A job can only wait for one of its own cluster.
        cluster = next((c for _, facts in after if (c := facts.get("cluster"))), None)
        _announce(run, one, cluster)
        if not alone:
            _see_alone(run)
        facts = backend.submit(run, one, after, cluster)
    except Overtaken:
        raise
    except SlurmUnreachable as error:
        facts = {"job_id": adopted(run, one, backend, error)}
        facts |= {"cluster": cluster} if cluster else {}
    except UserError as error:
        note(run, "refused", **one.facts(), reason=str(error))
        raise
    run.record("submitted", **one.facts(), **facts)
    return facts


def _see_that_it_is_wanted(run: Run, one: Sending, known: Sequence[Event]) -> None:
    """See that nobody has cancelled the run meanwhile, be it a stage that was not yet sent then."""
    events = run.events()
    wished = any(is_to_end(task_events(events, task)) for task in one.its_tasks())
    if wished or _wishes(events) > _wishes(known):
        reason = f"{run.id} was cancelled while it was being submitted"
        note(run, "withdrawn", **one.facts(), reason=reason)
        raise SiteError(reason)


def _wishes(events: Sequence[Event]) -> int:
    return sum(event["event"] == "cancelling" for event in events)


def _announce(run: Run, one: Sending, cluster: str | None) -> None:
    """Write down what is sent, and by whom, before it is: of several that send the same start of a
    stage, one does."""
    where = {"cluster": cluster} if cluster else {}
    pid = os.getpid()
    if not record_once(
        run.path / EVENTS_DIR,
        f"submitting-{one.stage.name}-{one.first}",
        "submitting",
        **one.facts(),
        **where,
        token=one.token(run),
        pid=pid,
        **process_facts(str(pid)),
    ):
        raise Overtaken(f"{run.id}: {one.stage.name} has just been submitted by another process")
    if one.why is not None:
        run.record("resumed", **one.facts(), reason=one.why)
        # Written by a reader who has not seen this yet.
        (run.path / SUMMARY_JSON).unlink(missing_ok=True)


def _see_alone(run: Run) -> None:
    """See, after `_announce`, that nobody has submitted the same meanwhile.

    Of two that are sent at the same moment each has announced itself before it looks, so at least
    one sees the other. The later one gives way; the earlier one waits for what becomes of it, for
    it may have looked too soon to see the earlier one.
    """
    site = str(run.manifest.site.get("name"))
    give_up = time.monotonic() + commands.SBATCH_TIMEOUT_S + reconcile.LOOK_FOR_S
    while twin := find_twin(run.path, run.plan, run.spec, site, complete=True):
        other = open_run(Path(twin.run_dir))
        undecided = being_sent(open_tasks(other, other.events())) is not None
        if not undecided or other.id < run.id or time.monotonic() > give_up:
            raise RequestError(refusal(twin))
        time.sleep(reconcile.LOOK_EVERY_S)


def _jobs_of(
    dependency: Dependency, jobs: Mapping[str, Sequence[Facts]], backend: Backend
) -> Sequence[Facts]:
    """The jobs that a dependency is on; none of a stage that has ended well already.

    Slurm forgets ended jobs, and a dependency on one that it does not know is refused.

    Raises:
        SiteError: a stage of another run has ended badly, or nobody knows its job (any more).
    """
    if dependency.on.run is None:
        return jobs[dependency.on.stage]
    other = open_run(Path(dependency.on.run))
    events = other.events()
    [task] = other.plan.stage(dependency.on.stage).tasks()
    own = task_events(events, task)
    if (end := recorded_end(own)) is not None:
        if end["state"] == StageState.SUCCESS.value or dependency.kind == "afterany":
            return []
        raise SiteError(
            f"{dependency.on} is {end['state']}, so nothing can come after it: "
            f"`rtdetr-slurm resume {other.id}` goes on with it"
        )
    asked = [one for one in open_tasks(other, events) if one.task == task]
    try:
        found = [job for job in backend.jobs(asked) if job is not None and not job.gone]
    except SlurmUnreachable as error:  # nothing has been sent, so nothing is unclear
        raise SiteError(f"{dependency.on} cannot be waited for: {error}") from error
    if not found:
        raise SiteError(f"{dependency.on} has no job that could be waited for")
    return [{"job_id": found[0].job_id, "cluster": cluster_of(own)}]
