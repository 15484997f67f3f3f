"""How far training is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 10.0
"""Pause between two lines in a log."""
WINDOW = 50
"""Steps over which speed and loss are averaged."""


class TrainingProgress:
    """Keeps the speed and shows it.

    Args:
        total_steps: of the whole training.
        images_per_step: over all ranks.
        bar: where to show it; None prints lines.
        quiet: show nothing.
    """

    def __init__(
        self,
        total_steps: int,
        images_per_step: int,
        bar: Progress | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.total_steps, self.images_per_step, self.quiet = total_steps, images_per_step, quiet
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=total_steps)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._times: deque[float] = deque([time.monotonic()], maxlen=WINDOW + 1)
        self._last_line = -LINE_SECONDS

    @property
    def seconds_per_step(self) -> float:
        """Over the last steps."""
        return (self._times[-1] - self._times[0]) / max(len(self._times) - 1, 1)

    def remaining(self, step: int) -> timedelta:
        """Expected time until `total_steps`, from `step` on."""
        return timedelta(seconds=round(self.seconds_per_step * (self.total_steps - step)))

    def pause(self) -> None:
        """Forget the clock: what follows is not a step (validation, writing)."""
        self._times.clear()
        self._times.append(time.monotonic())

    def update(self, where: str, step: int, loss: float, rate: float) -> None:
        """After a step.

        Args:
            where: `epoch 3/10 step 7/50`.
            step: steps done of the whole training.
            rate: learning rate.
        """
        now = time.monotonic()
        self._times.append(now)
        self._losses.append(loss)
        text = self._text(where, step, rate)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif not self.quiet and now - self._last_line >= LINE_SECONDS:
            self._last_line = now
            print(text, flush=True)

    def _text(self, where: str, step: int, rate: float) -> str:
        loss = sum(self._losses) / len(self._losses)
        speed = self.images_per_step / max(self.seconds_per_step, 1e-9)
        return (
            f"{where}  loss {loss:.3f}  lr {rate:.1e}  {speed:.1f} images/s  "
            f"ETA {self.remaining(step)}"
        )


@contextmanager
def show_progress(
    total_steps: int, images_per_step: int, *, main: bool
) -> Iterator[TrainingProgress]:
    """Progress for the length of a training: a bar on a terminal, lines elsewhere."""
    if not main or not sys.stdout.isatty():
        yield TrainingProgress(total_steps, images_per_step, quiet=not main)
        return
    with Progress(BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}")) as bar:
        yield TrainingProgress(total_steps, images_per_step, bar)
