"""Following a run until it ends: its logs line by line, its state at a polite pace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.report import RunReport
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, job_id_of, recorded_end, task_events
from rtdetr_slurm.submission.survey import survey_run

_LOG_EVERY_S = 0.5
_LOCAL_TICK_S = 2.0
_FIRST_TICK_S, _LAST_TICK_S = 5.0, 30.0
_UNKNOWN_TICKS = 10
"""So often in a row may nobody know a job before following it makes no more sense."""


class Follower:
    """Reports on a run until it ends.

    An end shows in the run's own record within a second. Slurm is asked rarely, and only to
    notice jobs that ended without being able to write anything down.

    Args:
        on_line: called with each line of the logs; None leaves the logs alone.
        on_report: called after each survey.
        on_note: called with what could not be found out.
    """

    def __init__(
        self,
        run: Run,
        *,
        on_line: Callable[[str], None] | None,
        on_report: Callable[[RunReport], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.run = run
        self._on_line, self._on_report, self._on_note = on_line, on_report, on_note
        self._readers: dict[str, LogReader] = {}
        self._local = all(s.launch.scheduler == "local" for s in run.plan.stages)
        self._tick = _LOCAL_TICK_S if self._local else _FIRST_TICK_S

    def follow(self, timeout_s: float | None = None) -> RunReport:
        """Returns the last report: of the run's end, of a job that nobody knows any more, or of
        the moment at which `timeout_s` is over."""
        next_survey, unknown, ends_seen = 0.0, 0, 0
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            ends = self._recorded_ends()
            now = time.monotonic()
            late = give_up is not None and now >= give_up
            over = late
            if late or ends > ends_seen or now >= next_survey:
                latest = self._survey()
                unknown = unknown + 1 if latest.state is StageState.UNKNOWN else 0
                over = late or latest.ended or unknown >= _UNKNOWN_TICKS
                next_survey = time.monotonic() + self._tick * random.uniform(0.9, 1.1)
                self._tick = self._tick if self._local else min(self._tick * 1.5, _LAST_TICK_S)
            ends_seen = ends
            self._pass_on_lines(end=over)
            if over:
                return latest
            time.sleep(_LOG_EVERY_S)

    def _survey(self) -> RunReport:
        report, notes = survey_run(self.run.path)
        for note in notes:
            self._on_note(note)
        self._on_report(report)
        return report

    def _recorded_ends(self) -> int:
        events = self.run.events()
        tasks = self.run.plan.tasks()
        return sum(recorded_end(task_events(events, task)) is not None for task in tasks)

    def _pass_on_lines(self, *, end: bool) -> None:
        if self._on_line is None:
            return
        events = self.run.events()
        for task in self.run.plan.tasks():
            job_id = job_id_of(task_events(events, task), task)
            if job_id and task.name not in self._readers:
                self._readers[task.name] = LogReader(self.run.log_path(task.stage.name, job_id))
        for reader in self._readers.values():
            for line in reader.new_lines(end=end):
                self._on_line(line)
