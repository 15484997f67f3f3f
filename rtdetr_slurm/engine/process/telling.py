"""What rank 0 does, for people who watch: progress.json, written by a thread of its own.

The work itself only sets numbers; it never waits for a file.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from threading import Event, Thread

from rtdetr_slurm.contract import Env
from rtdetr_slurm.engine.process.phases import Phase, Phases
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.claim import Superseded
from rtdetr_slurm.runs.live import Live, StartTimes, read_live, write_live

EVERY_S = 2.0
_LAST_WORD_S = 10.0
"""How long an action waits for the last writing; a file system that hangs must not hold its end."""


@contextmanager
def telling(session: Session) -> Iterator[None]:
    """Keep progress.json up to date for the length of an action, on rank 0."""
    if not session.context.is_main or session.start is None:
        yield
        return
    teller = _Teller(session)
    thread = Thread(target=teller.run, name="progress.json", daemon=True)
    thread.start()
    try:
        yield
    finally:
        teller.over.set()
        thread.join(_LAST_WORD_S)


class _Teller:
    def __init__(self, session: Session) -> None:
        assert session.start is not None
        self.session, self.start = session, session.start
        self.over = Event()
        self._before = before_the_session(os.environ, time.time())
        found = read_live(session.results_dir, session.start.claim)
        starts = found.starts if found else ()
        self._earlier = tuple(one for one in starts if one.restart < session.start.restart)
        if found is not None:
            session.numbers.setdefault("best", found.best)

    def run(self) -> None:
        """Write until the action is over, and then once more; nothing once the folder is another
        start's. A disk that is full ends an action by itself; here the next time is another try."""
        over = False
        while not over:
            over = self.over.wait(EVERY_S)
            try:
                self.session.check_latest()
                write_live(self.session.results_dir, self._live())
            except Superseded:
                return
            except (OSError, UserError):
                continue

    def _live(self) -> Live:
        phases, now = self.session.phases, self.session.phases.now
        seconds = self._before | seconds_of(phases)
        # A copy, for the training sets further ones meanwhile.
        numbers = {k: v for k, v in dict(self.session.numbers).items() if _is_number(v)}
        return Live(
            claim=self.start.claim,
            device=self.session.context.device.type,
            phase=now.phase.value,
            epoch=now.epoch,
            step=now.step,
            steps=now.steps,
            start=StartTimes(
                restart=self.start.restart,
                updated=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                seconds={name: round(value, 3) for name, value in seconds.items()},
                loader_wait=round(sum(phases.waited.values()), 3),
            ),
            earlier=self._earlier,
            **numbers,
        )


def before_the_session(environ: Mapping[str, str], now: float) -> dict[str, float]:
    """Seconds from the launch to `rtdetr`, and from there to the moment at which the ranks have
    joined; 0 where nobody has taken the time."""
    entered = float(environ.get(Env.ENTERED) or now)
    launched = float(environ.get(Env.LAUNCHED) or entered)
    return {"container": max(entered - launched, 0.0), "imports": max(now - entered, 0.0)}


def seconds_of(phases: Phases) -> dict[str, float]:
    """What the time of an action has gone into, by the names of runs.live."""
    seconds, model = phases.seconds, phases.parts.get("model", 0.0)
    return {
        "data": max(seconds[Phase.LOADING] - model, 0.0),
        "model": model,
        "stepping": seconds[Phase.STEPPING] + seconds[Phase.INFERRING],
        **{p.value: seconds[p] for p in (Phase.VALIDATING, Phase.SAVING)},
    }


def _is_number(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
