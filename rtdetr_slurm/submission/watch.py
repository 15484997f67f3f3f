"""Keeping a picture of runs up to date without being a burden to Slurm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import Thread

from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.live import read_live
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.submission.survey import Survey, survey_runs

_FIRST_S, _LAST_S, _SILENT_S = 5.0, 30.0, 120.0
"""Pauses between two questions: the first, the longest, and the longest while nobody answers."""
_REFRESH_S = 2.0
"""Pause between two looks at what the ranks tell of themselves; no question to Slurm."""


class Pace:
    """When Slurm is asked next: ever more seldom, never at the same beat as others.

    Args:
        first_s, last_s: the first and the longest pause.
    """

    def __init__(self, first_s: float = _FIRST_S, last_s: float = _LAST_S) -> None:
        self._pause, self._last = first_s, last_s

    def pause(self, *, silent: bool) -> float:
        """Seconds until the next question, after one that was answered or not."""
        longest = _SILENT_S if silent else self._last
        now = min(self._pause, longest)
        self._pause = min(now * (2 if silent else 1.5), longest)
        return now * random.uniform(0.8, 1.2)


@dataclass(frozen=True)
class Picture:
    """What is known of the runs.

    Attributes:
        reports, unreadable: as of Survey.
        notes: what is to be said once.
        silence: since when Slurm does not answer, and why, in words; None where it does.
    """

    reports: Mapping[Path, RunReport]
    unreadable: Mapping[Path, str]
    notes: tuple[str, ...] = ()
    silence: str | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for: all has ended, or nobody knows of it any more."""
        states = {report.state for report in self.reports.values()}
        waits = {StageState.QUEUED, StageState.RUNNING}
        return not states & (waits | {StageState.UNKNOWN} if self.silence else waits)


class Watcher:
    """Asks Slurm in a thread of its own, so that an answer that takes a minute holds up nothing.

    Args:
        folders: names the runs, anew for each question.
        survey: what asks.
    """

    def __init__(
        self,
        folders: Callable[[], Sequence[Path]],
        pace: Pace | None = None,
        survey: Callable[[Sequence[Path]], Survey] = survey_runs,
    ) -> None:
        self._folders, self._survey = folders, survey
        self._pace = pace or Pace()
        self._next = self._refreshed = 0.0
        self._question: _Question | None = None
        self._answered: datetime | None = None
        self._picture: Picture | None = None

    def hurry(self) -> None:
        """Something has happened: ask at the next opportunity."""
        self._next = 0.0

    def look(self) -> tuple[Picture | None, bool]:
        """The picture as it is now, None before the first answer, and whether Slurm has just been
        heard or found silent. To be called often.

        Raises:
            Exception: whatever the survey has met.
        """
        now = time.monotonic()
        if self._question is None and now >= self._next:
            self._question = _Question(lambda: self._survey(self._folders()))
        if self._question is not None and not self._question.is_alive():
            survey = self._question.answer()
            self._question = None
            self._next = now + self._pace.pause(silent=survey.silence is not None)
            self._picture = self._drawn(survey)
            self._refreshed = now
            return self._picture, True
        if self._picture is not None and now - self._refreshed >= _REFRESH_S:
            reports = {f: refreshed(one) for f, one in self._picture.reports.items()}
            self._picture = replace(self._picture, reports=reports)
            self._refreshed = now
        return self._picture, False

    def _drawn(self, survey: Survey) -> Picture:
        reports, silence = survey.reports, None
        if survey.silence is None:
            self._answered = datetime.now()
        else:
            before = self._picture.reports if self._picture else {}
            reports = {
                folder: remembering(report, before[folder]) if folder in before else report
                for folder, report in reports.items()
            }
            since = f"since {self._answered:%H:%M:%S}" if self._answered else "yet"
            silence = f"Slurm has not answered {since}: {survey.silence}"
        return Picture(reports, survey.unreadable, survey.notes, silence)


class _Question(Thread):
    """A question that is being asked."""

    def __init__(self, ask: Callable[[], Survey]) -> None:
        super().__init__(name="survey", daemon=True)
        self._ask = ask
        self._answer: Survey | None = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._answer = self._ask()
        except Exception as error:
            self._error = error

    def answer(self) -> Survey:
        self.join()
        if self._answer is None:
            raise self._error or RuntimeError("the survey has ended without an answer")
        return self._answer


def refreshed(report: RunReport) -> RunReport:
    """The same report with what the ranks of its running stages say by now."""
    if not any(stage.state is StageState.RUNNING for stage in report.stages):
        return report
    return replace(report, stages=tuple(_refreshed(report.run_id, s) for s in report.stages))


def _refreshed(run_id: str, stage: StageReport) -> StageReport:
    if stage.state is not StageState.RUNNING:
        return stage
    live = read_live(Path(stage.results_dir), claim_id(run_id, stage.name))
    return replace(stage, live=live or stage.live)


def remembering(report: RunReport, before: RunReport) -> RunReport:
    """A report made while Slurm is silent: what only Slurm can tell is as it last said.

    What the run's own record tells by now, an end above all, wins.
    """
    known = {stage.name: stage for stage in before.stages}
    return replace(
        report, stages=tuple(_remembering(s, known.get(s.name, s)) for s in report.stages)
    )


def _remembering(stage: StageReport, before: StageReport) -> StageReport:
    if stage.state not in (StageState.UNKNOWN, before.state) or before.state.ended:
        return stage
    return replace(stage, state=before.state, detail=before.detail, job=before.job)
