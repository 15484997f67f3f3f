"""What a reader of another tool's data set finds, and the report of what was changed of it.

Standard library only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from rtdetr_slurm.errors import RequestError

Box: TypeAlias = tuple[float, float, float, float]
"""x, y, width, height in pixels of the upright image, from its top left corner."""

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class FoundBox:
    """One object.

    Attributes:
        label: name of its class.
        area: in square pixels; None: that of the box.
    """

    label: str
    box: Box
    crowd: bool = False
    area: float | None = None


@dataclass
class FoundImage:
    """An image that exists, with its size upright, in pixels.

    Attributes:
        number: its id; None: it has none that COCO allows.
    """

    file: Path
    width: int
    height: int
    boxes: list[FoundBox] = field(default_factory=list)
    number: int | None = None


@dataclass
class FoundSplit:
    """The images that are for one purpose: train, val, test, or however the tool calls it.

    Attributes:
        classes: name → the tool's id, None where it has none; in the tool's order.
    """

    name: str
    images: list[FoundImage] = field(default_factory=list)
    classes: dict[str, int | None] = field(default_factory=dict)


def name_classes(splits: Sequence[FoundSplit]) -> None:
    """Give the classes of boxes, sorted, to every split of a tool that has no list of them: one
    may lack a class that another has, and all count the same."""
    labels = sorted({box.label for split in splits for i in split.images for box in i.boxes})
    for split in splits:
        split.classes = dict.fromkeys(labels)


@dataclass
class Change:
    """What was done about one kind of thing.

    Attributes:
        what: to one of them.
        first: where the first one was.
    """

    what: str
    count: int
    first: str

    def __str__(self) -> str:
        where = f" (first: {self.first})" if self.first else ""
        return f"{self.count} × {self.what}{where}"


class Report:
    """What a conversion changes and leaves out; and what it cannot make anything of."""

    def __init__(self) -> None:
        self._changes: dict[str, Change] = {}
        self._problems: list[str] = []
        self._unread = 0

    @property
    def changes(self) -> Sequence[Change]:
        return [*self._changes.values()]

    def changed(self, what: str, first: object = "") -> None:
        if what not in self._changes:
            self._changes[what] = Change(what, 0, str(first))
        self._changes[what].count += 1

    def problem(self, text: str) -> None:
        self._unread += 1
        if len(self._problems) < _SHOWN:
            self._problems.append(text)

    def check(self) -> None:
        """Raise RequestError if there was a problem."""
        if self._problems:
            more = self._unread - len(self._problems)
            lines = [*self._problems, *([f"and {more} more"] if more else [])]
            raise RequestError("nothing is converted:\n  " + "\n  ".join(lines))
