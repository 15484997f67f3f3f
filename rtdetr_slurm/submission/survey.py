"""The state of many runs with one question to Slurm."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.errors import RequestError, SiteError, UserError, explained
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.report import keep_summary, report_run
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.runs.state import StageState, is_given_up
from rtdetr_slurm.runs.summary import RunReport, read_summary
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.slurm.states import ACTIVE, PENDING
from rtdetr_slurm.submission.backends import Backend, LocalBackend, SlurmBackend
from rtdetr_slurm.submission.ends import complete_ends, give_up_lost
from rtdetr_slurm.submission.sending import open_tasks

_UNDER_WAY = PENDING | ACTIVE


@dataclass(frozen=True)
class Survey:
    """What was found out.

    Attributes:
        reports: of the runs that can be read, by folder, in the order asked for.
        unreadable: why the others cannot, by folder.
        notes: what could not be found out, and what was recorded, a line each.
        silence: why Slurm could not be asked; None where it has answered, or there was no need.
    """

    reports: Mapping[Path, RunReport]
    unreadable: Mapping[Path, str]
    notes: tuple[str, ...] = ()
    silence: str | None = None

    @property
    def told(self) -> tuple[str, ...]:
        """The notes, and that Slurm is silent."""
        words = "Slurm cannot be asked, so states are from the runs' records"
        return (*([f"{words}: {self.silence}"] if self.silence else []), *self.notes)


def survey_runs(folders: Sequence[Path], *, complete: bool = True) -> Survey:
    """Report on runs, with one squeue for all that have not ended; ended ones cost one small read.

    A Slurm that does not answer is no failure of a run: such runs are judged by their own record.
    One damaged run does not hide the others.

    Args:
        complete: record the end of a job that could not write it down, which a note says.
    """
    with _uncollected():
        return _survey(folders, complete=complete)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Leave what is read alone: it stays until the end, and Python would look through all of it
    again and again for what is garbage."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _survey(folders: Sequence[Path], *, complete: bool) -> Survey:
    reports: dict[Path, RunReport] = {}
    unreadable: dict[Path, str] = {}
    unended: dict[Path, tuple[Run, list[Event]]] = {}
    for folder in folders:
        try:
            if summary := read_summary(folder):
                reports[folder] = summary
            else:
                unended[folder] = _read(folder)
        except (UserError, OSError) as error:
            unreadable[folder] = str(explained(error))
    jobs, silence = _jobs(unended)
    notes: list[str] = []
    for folder, (run, events) in unended.items():
        try:
            if any(job.state not in _UNDER_WAY for job in jobs[folder].values()):
                # The job may have had its last word since then, and the run may have gone.
                run, events = _read(folder)
            report = report_run(run, jobs[folder], events)
            told = complete_ends(run, report, events) if complete else []
            told += give_up_lost(run, report, events) if complete else []
            if told:
                notes += told
                report = report_run(run, jobs[folder], run.events())
            reports[folder] = report
            if complete and run.is_own and _ended_by_another(run, report):
                with suppress(OSError):
                    keep_summary(run)
        except (UserError, OSError) as error:
            unreadable[folder] = str(explained(error))
    ordered = {folder: reports[folder] for folder in folders if folder in reports}
    return Survey(ordered, unreadable, tuple(notes), silence)


def survey_run(folder: Path, *, complete: bool = True) -> tuple[RunReport, tuple[str, ...]]:
    """Report on one run, and what could not be found out; `complete` as for `survey_runs`.

    Raises:
        RequestError: it cannot be read.
    """
    found = survey_runs([folder], complete=complete)
    if folder in found.unreadable:
        raise RequestError(found.unreadable[folder])
    return found.reports[folder], found.told


def _ended_by_another(run: Run, report: RunReport) -> bool:
    """Whether a run is over because another one is, which did not tell it so."""
    skipped = [one.name for one in report.stages if one.state is StageState.SKIPPED]
    waiting = [s for s in run.plan.stages if any(d.on.run is not None for d in s.depends_on)]
    names = [task.name for stage in waiting for task in stage.tasks()]
    return report.ended and not {*skipped}.isdisjoint(names)


def _read(folder: Path) -> tuple[Run, list[Event]]:
    run = open_run(folder)
    return run, run.events()


def _jobs(
    runs: Mapping[Path, tuple[Run, list[Event]]],
) -> tuple[dict[Path, dict[str, JobInfo]], str | None]:
    """By run and task what the schedulers say, and why Slurm could not be asked."""
    asked = [
        (folder, one)
        for folder, (run, events) in runs.items()
        for one in open_tasks(run, events)
        if not is_given_up(one.events)
    ]
    found: dict[Path, dict[str, JobInfo]] = {folder: {} for folder in runs}
    silence: str | None = None
    backends: dict[str, Backend] = {"slurm": SlurmBackend(), "local": LocalBackend()}
    for scheduler, backend in backends.items():
        own = [(f, one) for f, one in asked if one.task.stage.launch.scheduler == scheduler]
        try:
            jobs = backend.jobs([one for _, one in own])
        except (SiteError, OSError) as error:
            silence = str(explained(error))
            continue
        for (folder, one), job in zip(own, jobs, strict=True):
            if job is not None:
                found[folder][one.task.name] = job
    return found, silence
