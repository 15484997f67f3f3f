"""Whether every node of a step gets on before there are ranks: makes its copies, begins.

A container whose start hangs, on a file system or a FUSE process that does not answer, has no ranks
yet that could notice it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.launch.copies import COPIES_JSON, COPYING_FILE
from rtdetr_slurm.launch.node_errors import write_node_error
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import exists, read_file
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.status import read_status

Part: TypeAlias = Literal["node", "copy"]
NODE: Part = "node"
COPY: Part = "copy"
"""What a step does on each node: become the program, or copy what that is to read."""
STARTED_FILE = "started"
"""In a node's own folder: made by `rtdetr` when it begins, and before TAO's work."""
LIMIT_S = 1800.0
"""Longer no node takes for its container, also where hundreds read the same image."""
_LOOK_S = 5.0


class Watch(ABC):
    """What is known of the nodes of a step that has just been started.

    Args:
        now: on the clock that `late` is asked with.
    """

    lack: str
    """What is wrong with a node that is late."""
    said: str
    """The same for the log, before the nodes."""

    def __init__(self, run: Run, task: StageTask, now: float) -> None:
        self.run, self.task = run, task
        self._is_on = task.stage.launch.endurance.hang_minutes > 0
        self._next_look = now

    def late(self, now: float) -> Sequence[int]:
        """Numbers of the nodes that should be further and are not."""
        if not self._is_on or now < self._next_look:
            return []
        self._next_look = now + _LOOK_S
        try:
            return self._late(now)
        except UserError:
            return []  # this node sees nothing of the others

    @abstractmethod
    def _late(self, now: float) -> Sequence[int]:
        """Raises UserError: the run folder cannot be read."""

    def refuse(self, late: Sequence[int], nodes: Sequence[str]) -> None:
        """Write down, as these nodes would, that they have not started.

        Args:
            nodes: names, in order; none where the scheduler does not say.

        Raises:
            OSError: it cannot be written.
        """
        reason = SiteError(self.lack.format(minutes=f"{LIMIT_S / 60:.3g}"))
        for rank in late:
            node = nodes[rank] if rank < len(nodes) else f"number {rank}"
            write_node_error(self.run, self.task, rank, node, reason)


class Arrivals(Watch):
    """Whether the program has begun."""

    lack = (
        "its program has not begun {minutes} min after srun: its container, or a file system that "
        "it starts from, does not answer"
    )
    said = "nothing has begun on node"

    def __init__(self, run: Run, task: StageTask, now: float) -> None:
        super().__init__(run, task, now)
        self._missing: Sequence[int] = range(task.stage.resources.nodes)
        self._deadline = now + LIMIT_S
        self._lines = self._status_lines()

    def _late(self, now: float) -> Sequence[int]:
        self._missing = [rank for rank in self._missing if not exists(self._mark(rank))]
        if now < self._deadline or not self._missing:
            return []
        if self._status_lines() != self._lines:
            self._missing = []  # an engine of an older image; all of its ranks have met
        return self._missing

    def _mark(self, rank: int) -> Path:
        return self.run.node_dir(self.task, rank) / STARTED_FILE

    def _status_lines(self) -> int | None:
        try:
            return len(read_status(status_path(self.task)))
        except UserError:
            return None


class Copying(Watch):
    """Whether the copies get on, however long they take."""

    lack = (
        "its copies have not got on for {minutes} min: the shared file system, or its scratch "
        "folder, does not answer"
    )
    said = "no copy gets on, on node"

    def __init__(self, run: Run, task: StageTask, now: float) -> None:
        super().__init__(run, task, now)
        self._since = dict.fromkeys(range(task.stage.resources.nodes), now)
        self._signs: dict[int, bytes] = {}

    def _late(self, now: float) -> Sequence[int]:
        for rank in [*self._since]:
            folder = self.run.node_dir(self.task, rank)
            if exists(folder / COPIES_JSON):
                del self._since[rank]
            elif (sign := _content(folder / COPYING_FILE)) != self._signs.get(rank, b""):
                self._signs[rank], self._since[rank] = sign, now
        return [rank for rank, since in self._since.items() if now - since >= LIMIT_S]


WATCHES: Mapping[Part, type[Watch]] = {NODE: Arrivals, COPY: Copying}


def _content(path: Path) -> bytes:
    try:
        return read_file(path)
    except FileNotFoundError:
        return b""
