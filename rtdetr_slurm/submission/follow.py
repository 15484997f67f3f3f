"""Following a run until it ends: its logs line by line, its state at a polite pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, job_id_of, recorded_end, task_events
from rtdetr_slurm.runs.summary import RunReport
from rtdetr_slurm.submission.watch import Pace, Watcher

_LOG_EVERY_S = 0.5
_SOON_S = 0.05
_LOCAL_TICK_S = 2.0
_UNKNOWN_TICKS = 10
"""So often in a row may nobody know a job before following it makes no more sense."""


class Follower:
    """Reports on a run until it ends.

    An end shows in the run's own record within a second. Slurm is asked rarely, and only to
    notice jobs that ended without being able to write anything down.

    Args:
        on_line: called with each line of the logs; None leaves the logs alone.
        on_report: called every few seconds.
        on_note: called with what could not be found out, and what was recorded.
        on_silence: called with each report: since when Slurm does not answer, in words, or None.
    """

    def __init__(
        self,
        run: Run,
        *,
        on_line: Callable[[str], None] | None,
        on_report: Callable[[RunReport], None],
        on_note: Callable[[str], None],
        on_silence: Callable[[str | None], None] = lambda _: None,
    ) -> None:
        self.run = run
        self._on_line, self._on_report, self._on_note = on_line, on_report, on_note
        self._on_silence = on_silence
        self._readers: dict[Path, LogReader] = {}
        local = all(s.launch.scheduler == "local" for s in run.plan.stages)
        pace = Pace(_LOCAL_TICK_S, _LOCAL_TICK_S) if local else Pace()
        self._watcher = Watcher(lambda: [run.path], pace)

    def follow(self, timeout_s: float | None = None) -> RunReport:
        """Returns the last report: of the run's end, of a job that nobody knows any more, or of
        the moment at which `timeout_s` is over.

        Raises:
            RequestError: the run cannot be read.
        """
        unknown, ends_seen = 0, 0
        latest: RunReport | None = None
        give_up = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            ends = self._recorded_ends()
            if ends > ends_seen:
                self._watcher.hurry()
            ends_seen = ends
            report, asked = self._look()
            if report is not None and report is not latest:
                latest = report
                self._on_report(report)
            if asked and latest is not None:
                unknown = unknown + 1 if latest.state is StageState.UNKNOWN else 0
            late = give_up is not None and time.monotonic() >= give_up
            over = latest is not None and (late or latest.ended or unknown >= _UNKNOWN_TICKS)
            self._pass_on_lines(end=over)
            if over and latest is not None:
                return latest
            time.sleep(_LOG_EVERY_S if latest is not None else _SOON_S)

    def _look(self) -> tuple[RunReport | None, bool]:
        """The report as it is now, and whether Slurm has just been asked."""
        picture, asked = self._watcher.look()
        if picture is None:
            return None, False
        if asked:
            for note in picture.notes:
                self._on_note(note)
            self._on_silence(picture.silence)
        if self.run.path in picture.unreadable:
            raise RequestError(picture.unreadable[self.run.path])
        return picture.reports[self.run.path], asked

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
            path = self.run.log_path(task.stage.name, job_id) if job_id else None
            if path is not None and path not in self._readers:  # after `resume` it is another job
                self._readers[path] = LogReader(path)
        for reader in self._readers.values():
            for line in reader.new_lines(end=end):
                self._on_line(line)
