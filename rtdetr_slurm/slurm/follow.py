"""Following a run until it ends: its log line by line, its state at a polite pace."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from rtdetr_slurm.runs.logs import LogReader
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState, finished_event, stage_events
from rtdetr_slurm.slurm.survey import RunSurvey, survey

_LOG_EVERY_S = 0.5
_LOCAL_TICK_S = 2.0
_FIRST_TICK_S, _LAST_TICK_S = 5.0, 30.0
_UNKNOWN_TICKS = 10
"""So often in a row may nobody know a job before following it makes no more sense."""


class Follower:
    """Reports on a run until it ends.

    The end shows in the run's own record within a second. Slurm is asked rarely, and only to
    notice jobs that ended without being able to write anything down.

    Args:
        on_line: called with each line of the log; None leaves the log alone.
        on_state: called after each survey.
        on_note: called with what could not be found out.
    """

    def __init__(
        self,
        run: Run,
        *,
        on_line: Callable[[str], None] | None,
        on_state: Callable[[RunSurvey], None],
        on_note: Callable[[str], None],
    ) -> None:
        self.run = run
        self._on_line, self._on_state, self._on_note = on_line, on_state, on_note
        self._readers: dict[str, LogReader] = {}
        self._local = all(s.launch.scheduler == "local" for s in run.plan.stages)
        self._tick = _LOCAL_TICK_S if self._local else _FIRST_TICK_S

    def follow(self) -> RunSurvey:
        """Returns the last survey: of the run's end, or of a job that nobody knows any more."""
        next_survey, unknown, end_seen = 0.0, 0, False
        while True:
            ended = _recorded_end(self.run)
            over = False
            if (ended and not end_seen) or time.monotonic() >= next_survey:
                latest = self._survey()
                unknown = unknown + 1 if latest.state is StageState.UNKNOWN else 0
                over = latest.state.ended or unknown >= _UNKNOWN_TICKS
                next_survey = time.monotonic() + self._tick * random.uniform(0.9, 1.1)
                self._tick = self._tick if self._local else min(self._tick * 1.5, _LAST_TICK_S)
            end_seen = ended
            self._pass_on_lines(end=over)
            if over:
                return latest
            time.sleep(_LOG_EVERY_S)

    def _survey(self) -> RunSurvey:
        surveys, notes = survey([self.run])
        for note in notes:
            self._on_note(note)
        self._on_state(surveys[0])
        return surveys[0]

    def _pass_on_lines(self, *, end: bool) -> None:
        if self._on_line is None:
            return
        for event in self.run.events():
            job_id = event.get("job_id")
            if job_id and job_id not in self._readers:
                self._readers[job_id] = LogReader(self.run.log_path(job_id))
        for reader in self._readers.values():
            for line in reader.new_lines(end=end):
                self._on_line(line)


def _recorded_end(run: Run) -> bool:
    events = run.events()
    return all(finished_event(stage_events(events, s.name)) for s in run.plan.stages)
