"""What a rank is doing, and how long it has done what. Standard library only; costs nothing.

The code that works says so, at its boundaries alone:

    with session.phases.during(Phase.STEPPING, epoch=3, step=0, steps=50) as phases:
        for batch in phases.batches(loader):  # the waiting for a batch is counted apart
            ...
            phases.stepped()  # after each step

A phase within another one (a checkpoint in the middle of an epoch) stands for itself: its time is
not the outer one's, which goes on afterwards. Whoever wants to know reads `phases.now` and
`phases.seconds`, at any time and from any thread, or is told of each change:

    session.phases.observers.append(lambda phases: ...)

An observer is called at every step and at every change of phase, by the thread that works: it must
be quick, and must not raise. No device is waited for here, and nothing is written.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

T = TypeVar("T")


class Phase(str, Enum):
    """What a rank does."""

    LOADING = "loading"
    """Everything before the first step: data, model, checkpoint."""
    STEPPING = "stepping"
    """The optimizer steps of an epoch, the waiting for their batches included."""
    VALIDATING = "validating"
    """Scoring, after an epoch or by `evaluate`; a batch of it is a step."""
    INFERRING = "inferring"
    """Looking for objects in images without annotations; a batch of it is a step."""
    SAVING = "saving"
    """Writing a checkpoint."""
    OTHER = "other"
    """What is left: sums over the ranks, reports, the picture at the end."""


@dataclass(frozen=True)
class Doing:
    """What a rank does at a moment.

    Attributes:
        since: when the phase began, on the monotonic clock.
        epoch: zero-based; None where there are none.
        step: steps of the phase that are done, for STEPPING also those of earlier starts.
        steps: of the phase in all; 0 where it has none. Of STEPPING those of the epoch.
    """

    phase: Phase
    since: float
    epoch: int | None = None
    step: int = 0
    steps: int = 0


class Phases:
    """What this rank is doing, from its first phase, LOADING, on.

    Attributes:
        now: what it does at this moment.
        steps_done: of all phases, since this process began; grows as long as there is progress.
        observers: called at every step and at every change of phase.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: defaultdict[Phase, float] = defaultdict(float)
        self._waited: defaultdict[Phase, float] = defaultdict(float)
        self._parts: defaultdict[str, float] = defaultdict(float)
        self._counted = clock()
        self.now = Doing(Phase.LOADING, self._counted)
        self.steps_done = 0
        self.observers: list[Callable[[Phases], None]] = []

    @property
    def seconds(self) -> Mapping[Phase, float]:
        """How long each phase has lasted in all, the present one up to now."""
        now = {self.now.phase: self._clock() - self._counted}
        return {phase: self._seconds[phase] + now.get(phase, 0.0) for phase in Phase}

    @property
    def waited(self) -> Mapping[Phase, float]:
        """Seconds of each phase in which it waited for a batch of its loader."""
        return {phase: self._waited[phase] for phase in Phase}

    @property
    def parts(self) -> Mapping[str, float]:
        """Seconds of the parts of LOADING that have a name."""
        return dict(self._parts)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """A part of LOADING, for the length of a block: `data` or `model`."""
        began = self._clock()
        try:
            yield
        finally:
            self._parts[name] += self._clock() - began

    def enter(
        self, phase: Phase, *, epoch: int | None = None, step: int = 0, steps: int = 0
    ) -> None:
        """From now on this rank does something else; the epoch stays where none is given."""
        epoch = self.now.epoch if epoch is None else epoch
        self._change(Doing(phase, self._clock(), epoch, step, steps))

    @contextmanager
    def during(
        self, phase: Phase, *, epoch: int | None = None, step: int = 0, steps: int = 0
    ) -> Iterator[Phases]:
        """A phase for the length of a block; afterwards the one before goes on."""
        before = self.now
        self.enter(phase, epoch=epoch, step=step, steps=steps)
        try:
            yield self
        finally:
            self._change(before)

    def stepped(self) -> None:
        """A step of the present phase is done."""
        self.now = replace(self.now, step=self.now.step + 1)
        self.steps_done += 1
        self._tell()

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """What `loader` delivers; the waiting for each is counted."""
        batches = iter(loader)
        while True:
            asked = self._clock()
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self._waited[self.now.phase] += self._clock() - asked
            yield batch

    def _change(self, doing: Doing) -> None:
        """The time until now is the present phase's; then it is `doing`'s."""
        now = self._clock()
        self._seconds[self.now.phase] += now - self._counted
        self._counted = now
        self.now = doing
        self._tell()

    def _tell(self) -> None:
        for observer in self.observers:
            observer(self)
