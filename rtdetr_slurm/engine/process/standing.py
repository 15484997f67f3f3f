"""Where ranks stand that make no steps any more, and which of them the others wait for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.engine.process.heartbeats import Beat
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.stacks import STOPPED
from rtdetr_slurm.records import Prose

PATIENCE = 4
"""So many times the limit may that take which has no steps: loading, a checkpoint, what follows the
last batch of a validation."""


@dataclass(frozen=True)
class Standing:
    """Where a rank stood when its node noticed a hang.

    Attributes:
        quiet: seconds since its last step or change of phase.
        limit: so many are a hang.
        state: the kernel's letter for its process.
        place: as stacks.Place has it.
    """

    rank: int
    node: Prose
    node_rank: int
    phase: Phase
    steps_done: int
    epoch: int | None
    step: int
    quiet: float
    limit: float
    state: Prose
    place: Prose
    waits: bool

    @property
    def stopped(self) -> bool:
        return self.state in STOPPED

    @property
    def silent(self) -> bool:
        """Whether it gave no stack."""
        return not self.place

    def __str__(self) -> str:
        where = f"rank {self.rank} on {self.node} "
        if self.silent:
            why = {"D": "it waits in the kernel, most often for a file system"}
            return f"{where}gave no stack ({why.get(self.state, 'it does not answer')})"
        stopped = ", stopped by a signal" if self.stopped else ""
        return f"{where}stands in {self.place}{stopped}"


def limit_seconds(minutes: float, beat: Beat) -> float:
    """How long a rank may be quiet that last said this."""
    makes_steps = beat.phase is Phase.STEPPING or beat.step < beat.steps
    return minutes * 60 * (1 if makes_steps else PATIENCE)


def culprit(standing: Sequence[Standing]) -> tuple[Standing, bool]:
    """The rank that the others wait for, and whether it is more than a guess.

    One that is stopped, or that the kernel holds; else the one with the fewest steps; else the one
    that is not waiting.
    """

    def key(one: Standing) -> tuple[bool, bool, int, bool]:
        return (not one.stopped, not one.silent, one.steps_done, one.waits)

    ordered = sorted(standing, key=lambda one: (*key(one), -one.quiet, one.rank))
    first, *others = ordered
    return first, not others or any(key(one) != key(first) for one in others)


def verdict(standing: Sequence[Standing], nodes: int, stacks: Path) -> tuple[str, int | None]:
    """What to say of a hang, and the number of the node at fault; None where it is not known."""
    missing = sorted({*range(nodes)} - {one.node_rank for one in standing})
    first, sure = culprit(standing)
    at = f"epoch {first.epoch + 1}, step {first.step}" if first.epoch is not None else "no epoch"
    what = f"no step for {first.quiet:.0f} s while {first.phase.value} ({at}); the limit is "
    what += f"{first.limit:.0f} s (job.hang_minutes). "
    what += f"The stacks of all ranks: {stacks}"
    if missing and not (first.stopped or first.silent):
        return f"node {missing[0]} does not answer, and {first}; {what}", missing[0]
    if not sure:
        return f"all ranks wait for one another: {first}; {what}", None
    return f"{first}; {what}", first.node_rank
