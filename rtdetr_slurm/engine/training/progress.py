"""How far training is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_SECONDS = 10.0
"""Pause between two lines in a log."""
WINDOW = 50
"""Steps over which speed and loss are averaged."""


class TrainingProgress:
    """Keeps the speed and shows it.

    Attributes:
        numbers: loss, images_per_second and eta_s after the last step.

    Args:
        num_epochs: of the whole training. steps_per_epoch: of each.
        images_per_step: over all ranks.
        bar: where to show it; None prints lines.
        quiet: show nothing.

    What is done may have been done in batches of another size: all that counts is what is left.
    """

    def __init__(
        self,
        num_epochs: int,
        steps_per_epoch: int,
        images_per_step: int,
        bar: Progress | None = None,
        *,
        quiet: bool = False,
    ) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = num_epochs * steps_per_epoch
        self.images_per_step, self.quiet = images_per_step, quiet
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", total=self.total_steps)
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._clock = time.monotonic()
        self._last_line = -LINE_SECONDS
        self._ends: list[float] = []
        self._within_epoch = False
        self.numbers: Mapping[str, float] = {}

    @property
    def seconds_per_step(self) -> float:
        """Over the last steps."""
        return sum(self._steps) / max(len(self._steps), 1)

    def remaining(self, steps_left: int) -> timedelta:
        """Expected time until the end of training, with so many steps still to make.

        What comes after an epoch's steps counts as soon as one epoch has shown how long it takes.
        """
        ends_left = math.ceil((steps_left + self._within_epoch) / self.steps_per_epoch)
        each_end = sum(self._ends) / max(len(self._ends), 1)
        seconds = self.seconds_per_step * steps_left
        return timedelta(seconds=round(seconds + each_end * ends_left))

    def end_epoch(self) -> None:
        """After what follows an epoch's steps: writing and validation are no part of a step."""
        self._ends.append(self._lap())
        self._within_epoch = False

    def update(self, where: str, steps_left: int, loss: float, rate: float) -> None:
        """After a step.

        Args:
            where: `epoch 3/10 step 7/50`.
            steps_left: of the whole training.
            rate: learning rate.
        """
        self._steps.append(self._lap())
        self._losses.append(loss)
        self._within_epoch = True
        self.numbers = {
            "loss": sum(self._losses) / len(self._losses),
            "images_per_second": self.images_per_step / max(self.seconds_per_step, 1e-9),
            "eta_s": self.remaining(steps_left).total_seconds(),
        }
        text = f"{where}  {self._text(rate)}"
        if self._bar is not None and self._task is not None:
            done = self.total_steps - steps_left
            self._bar.update(self._task, completed=done, description=text)
        elif not self.quiet and self._clock - self._last_line >= LINE_SECONDS:
            self._last_line = self._clock
            print(text, flush=True)

    def _lap(self) -> float:
        """Seconds since the last time."""
        before, self._clock = self._clock, time.monotonic()
        return self._clock - before

    def _text(self, rate: float) -> str:
        numbers = self.numbers
        return (
            f"loss {numbers['loss']:.3f}  lr {rate:.1e}  "
            f"{numbers['images_per_second']:.1f} images/s  "
            f"ETA {timedelta(seconds=numbers['eta_s'])}"
        )


@contextmanager
def show_progress(
    num_epochs: int, steps_per_epoch: int, images_per_step: int, *, main: bool
) -> Iterator[TrainingProgress]:
    """Progress for the length of a training: a bar on a terminal, lines elsewhere."""
    numbers = (num_epochs, steps_per_epoch, images_per_step)
    if not main or not sys.stdout.isatty():
        yield TrainingProgress(*numbers, quiet=not main)
        return
    with Progress(BarColumn(20), MofNCompleteColumn(), TextColumn("{task.description}")) as bar:
        yield TrainingProgress(*numbers, bar)
