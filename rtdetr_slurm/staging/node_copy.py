"""The step in which every node of a stage copies what that is to read. Standard library only."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType

from rtdetr_slurm.contract import END_SIGNALS, STOP_SIGNAL, ExitCode
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import PRIVATE_FILE, write_atomic
from rtdetr_slurm.launch.copies import COPIES_JSON, COPYING_FILE, Copied, LocalCopy, task_mark
from rtdetr_slurm.launch.inputs import read_inputs
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.node import layout_here, on_node
from rtdetr_slurm.launch.node_errors import node_name
from rtdetr_slurm.launch.rendezvous import Layout
from rtdetr_slurm.launch.scratch import own_folder, scratch_folder
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.claim import Start, start_of
from rtdetr_slurm.runs.live import Live, StartTimes, read_live, write_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.staging.local_copy import local_copy_of
from rtdetr_slurm.staging.progress import Progress, Stopped

_SIGN_EVERY_S, _SAY_EVERY_S = 10.0, 30.0


def run_copy(arguments: Sequence[str]) -> int:
    """Have the copies of a stage on this node; returns the exit code.

    Args:
        arguments: as `on_node` has them.
    """
    return on_node(arguments, _copy_all)


def folders_to_copy(run: Run, task: StageTask) -> Iterator[Path]:
    """Those that a task reads copies of, each once.

    Raises:
        BadRecord, OSError: what its inputs were filled with cannot be read.
    """
    filled = {one.field: one.value for one in read_inputs(run, task)}
    named = [filled.get(field) or value_at(run.spec, field) for field in task.stage.local_copy]
    yield from dict.fromkeys(Path(str(value)) for value in named)


def _copy_all(run: Run, task: StageTask, environ: Mapping[str, str]) -> int:
    asked = _AskedToStop()
    layout = layout_here(task.stage, environ)
    scratch = scratch_folder(task.stage.launch.scratch)
    if scratch is None:
        raise SiteError("the site names no scratch folder to copy to")
    folder, mark = run.node_dir(task, layout.rank), task_mark(run, task)
    teller = _Teller(folder / COPYING_FILE, node_name(environ), layout)
    live = _live_before(task, start_of(environ)) if layout.rank == 0 else None
    root = own_folder(scratch)
    made: dict[str, LocalCopy] = {}

    def tell(progress: Progress) -> None:
        if teller.tell(progress):
            for copy in made.values():
                copy.reserve(mark)
            if live is not None:
                _show(task, live, progress)

    try:
        for source in folders_to_copy(run, task):
            made[str(source)] = local_copy_of(source, root, mark, tell, asked.is_so, teller.say)
    except Stopped as stopped:
        teller.say(str(stopped))
        return ExitCode.INTERRUPTED
    for copy in made.values():
        copy.reserve(mark)  # until the program begins
    copied = [asdict(Copied(source, copy.key)) for source, copy in made.items()]
    write_atomic(folder / COPIES_JSON, json.dumps(copied) + "\n", mode=PRIVATE_FILE)
    return ExitCode.OK


def _live_before(task: StageTask, start: Start | None) -> Live | None:
    """What there is to show of this start yet; None where there is none to show."""
    if start is None:
        return None
    found = read_live(task.results_dir, start.claim)
    starts = () if found is None else found.starts
    return Live(
        claim=start.claim,
        device=task.stage.launch.accelerator or "cpu",
        phase="",
        start=StartTimes(start.restart, "", {}),
        best=None if found is None else found.best,
        earlier=tuple(one for one in starts if one.restart < start.restart),
    )


def _show(task: StageTask, live: Live, progress: Progress) -> None:
    """For `status`, in which node 0 speaks for all."""
    now = replace(live.start, updated=datetime.now(timezone.utc).isoformat())
    shown = replace(live, phase=f"{progress}", start=now, step=progress.bytes, steps=progress.size)
    with suppress(OSError):
        write_live(task.results_dir, shown)


class _AskedToStop:
    """Whether the launch, or Slurm, has asked for an end."""

    def __init__(self) -> None:
        self._so = False
        for signum in (STOP_SIGNAL, *END_SIGNALS):
            signal.signal(signum, self._note)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self._so = True

    def is_so(self) -> bool:
        return self._so


class _Teller:
    """Tells the launch and the log how far a node is.

    Args:
        sign: the file for the launch.
    """

    def __init__(self, sign: Path, node: str, layout: Layout) -> None:
        self._sign, self._node = sign, node
        # All nodes write to one log: the more there are, the less often does each.
        self._say_every_s = _SAY_EVERY_S * layout.nodes
        self._next_sign = 0.0
        self._next_line = time.monotonic() + _SAY_EVERY_S

    def tell(self, progress: Progress) -> bool:
        """Whether it was time for a sign."""
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + self._say_every_s
            self.say(str(progress))
        if now < self._next_sign:
            return False
        self._next_sign = now + _SIGN_EVERY_S
        with suppress(OSError):  # the next may be better
            write_atomic(self._sign, f"{progress}\n", mode=PRIVATE_FILE)
        return True

    def say(self, text: str) -> None:
        say(f"{self._node}: {text}")
