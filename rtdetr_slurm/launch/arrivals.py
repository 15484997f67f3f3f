"""Whether the program of a step has begun on every node.

A container whose start hangs, on a file system or a FUSE process that does not answer, has no ranks
yet that could notice it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.launch.node_errors import write_node_error
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.records import exists
from rtdetr_slurm.runs.run import Run, status_path
from rtdetr_slurm.runs.status import read_status

STARTED_FILE = "started"
"""In a node's own folder: made by `rtdetr` when it begins, and before TAO's work."""
LIMIT_S = 1800.0
"""Longer no node takes for its container, also where hundreds read the same image."""
_LOOK_S = 5.0


class Arrivals:
    """What is known of the nodes of a step that has just been started.

    Args:
        now: on the clock that `late` is asked with.
    """

    def __init__(self, run: Run, task: StageTask, now: float) -> None:
        self.run, self.task = run, task
        self._missing: Sequence[int] = range(task.stage.resources.nodes)
        watched = task.stage.launch.endurance.hang_minutes > 0
        self._deadline = now + LIMIT_S if watched else math.inf
        self._next_look = now
        self._lines = self._status_lines()

    def late(self, now: float) -> Sequence[int]:
        """Numbers of the nodes on which the program should have begun and has not."""
        if not self._missing or now < self._next_look or self._deadline == math.inf:
            return []
        self._next_look = now + _LOOK_S
        try:
            self._missing = [rank for rank in self._missing if not exists(self._mark(rank))]
        except UserError:
            return []  # this node sees nothing of the others
        if now < self._deadline or not self._missing:
            return []
        if self._status_lines() != self._lines:
            self._missing = []  # an engine of an older image; all of its ranks have met
        return self._missing

    def refuse(self, late: Sequence[int], nodes: Sequence[str]) -> None:
        """Write down, as these nodes would, that they have not started.

        Args:
            nodes: names, in order; none where the scheduler does not say.

        Raises:
            OSError: it cannot be written.
        """
        reason = f"its program has not begun {LIMIT_S / 60:.3g} min after srun: its container, or "
        reason += "a file system that it starts from, does not answer"
        for rank in late:
            node = nodes[rank] if rank < len(nodes) else f"number {rank}"
            write_node_error(self.run, self.task, rank, node, SiteError(reason))

    def _mark(self, rank: int) -> Path:
        return self.run.node_dir(self.task, rank) / STARTED_FILE

    def _status_lines(self) -> int | None:
        try:
            return len(read_status(status_path(self.task)))
        except UserError:
            return None
