"""Ranks that make no steps any more: noticing it, and finding out where they stand.

Each node watches its own ranks and says in a file of the results folder where they stand; node 0,
or the first that answers, names the culprit. Files are written and read by a helper that is given
up when it does not come back, for a file system that does not answer is one of the reasons for a
hang.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rtdetr_slurm.contract import Env, FailureClass
from rtdetr_slurm.engine.process.failures import RankFailure
from rtdetr_slurm.engine.process.heartbeats import HEARTBEATS, Beat, Heartbeats
from rtdetr_slurm.engine.process.stacks import (
    STACKS,
    Place,
    ask_for_stacks,
    ask_loaders,
    place_of,
    process_state,
)
from rtdetr_slurm.engine.process.standing import Standing, culprit, limit_seconds, verdict
from rtdetr_slurm.errors import SiteError, UserError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.records import BadRecord, checked, read_json

STACKS_DIR = "stacks"
"""In the results folder: the stacks of a start that has hung, of all ranks with their loading
processes."""
REPORT_PATTERN = ".hang-*.json"

_LOOK_SECONDS = 5.0
_ASLEEP_SECONDS = 30.0
"""Who has not looked for so long was suspended itself, and its ranks with it."""
_OTHERS_SECONDS = 75.0
"""How long a node waits for the reports of the others: NFS shows new files a minute late."""
_LEAVE_SECONDS = 15.0
"""What node 0 has longer than the others, for its words: another node's end ends it."""
_WRITE_SECONDS = 15.0


class HangWatch:
    """Watches the ranks of this node.

    Args:
        minutes: without a step that are a hang; 0 for not looking.
        start: number of this start, for the names of files.
        folder: with the results, which all nodes see.
    """

    def __init__(
        self,
        minutes: float,
        *,
        ranks: int,
        nodes: int,
        node_rank: int,
        start: int,
        folder: Path,
        environ: Mapping[str, str],
    ) -> None:
        self.minutes, self.ranks, self.nodes, self.node_rank = minutes, ranks, nodes, node_rank
        self.start, self.folder = start, folder
        self.node = environ.get(Env.NODE) or os.uname().nodename
        self.beats = Heartbeats(ranks)
        self._stacks = [os.memfd_create(f"stacks-{rank}") for rank in range(ranks)]
        self._next_look = 0.0
        self._looked = self._awake = time.monotonic()

    def variables(self, local_rank: int) -> dict[str, str]:
        """What a rank must be told."""
        return {HEARTBEATS: str(self.beats.fd), STACKS: str(self._stacks[local_rank])}

    def descriptors(self, local_rank: int) -> tuple[int, ...]:
        """What a rank must be given."""
        return (self.beats.fd, self._stacks[local_rank])

    def close(self) -> None:
        self.beats.close()
        for fd in self._stacks:
            os.close(fd)

    def hangs(self, living: Sequence[int]) -> bool:
        """Whether a rank of this node, or of another one, has hung.

        Args:
            living: local ranks that have not ended.
        """
        if not self.minutes or not living:
            return False
        now = time.monotonic()
        if now - self._looked > _ASLEEP_SECONDS:
            self._awake = now  # scontrol suspend, or gang scheduling: nobody could make a step
        self._looked = now
        beats = [self.beats.read(rank) for rank in living]
        quiet = [now - max(beat.time, self._awake) for beat in beats]
        limits = [limit_seconds(self.minutes, beat) for beat in beats]
        if any(silence > limit for silence, limit in zip(quiet, limits, strict=True)):
            return True
        if self.nodes == 1 or max(quiet) <= self.minutes * 60 or now < self._next_look:
            return False
        # What this rank does may take its time, but somebody who waits for it may know better.
        self._next_look = now + min(_LOOK_SECONDS, self.minutes * 60)
        found: list[Standing] = []
        if not in_time(lambda: found.extend(self._reports())):
            self._next_look = math.inf  # a folder that does not answer is not asked again
        self._looked = time.monotonic()
        return bool(found)

    def explain(self, pids: Mapping[int, int]) -> list[RankFailure]:
        """Say where the ranks stand; on node 0, or the first that answers, also what the hang comes
        down to.

        Args:
            pids: local rank to process, of those that have not ended.
        """
        own = self._ask(pids)
        in_time(lambda: self._write([standing for standing, _ in own], dict(own)))
        for standing, text in own:
            print(f"rtdetr: {standing}\n{text}", flush=True)
        deadline = time.monotonic() + _OTHERS_SECONDS
        known = [standing for standing, _ in own]
        while len({one.node_rank for one in known}) < self.nodes and time.monotonic() < deadline:
            time.sleep(0.5)
            in_time(lambda: known.extend(o for o in self._reports() if o not in known))
        if self.node_rank != 0:
            # Node 0 may see what is there a minute later; when it has spoken, its end ends this.
            time.sleep(max(deadline - time.monotonic(), 0) + _LEAVE_SECONDS)
        if not known or self.node_rank not in (0, min(one.node_rank for one in known)):
            return []
        reason, node_rank = verdict(known, self.nodes, self.folder / STACKS_DIR)
        rank = culprit(known)[0].rank
        return [
            RankFailure(rank, FailureClass.INFRA, reason, time=time.time(), node_rank=node_rank)
        ]

    def _ask(self, pids: Mapping[int, int]) -> list[tuple[Standing, str]]:
        now = time.monotonic()
        beats = {rank: self.beats.read(rank) for rank in pids}
        states = {rank: process_state(pid) for rank, pid in pids.items()}
        processes = [*pids.values()]
        texts = ask_for_stacks(processes, [self._stacks[rank] for rank in pids])
        loaders = ask_loaders(processes)
        return [
            (
                self._standing(rank, beats[rank], now, states[rank], place_of(text)),
                text + of_loaders,
            )
            for rank, text, of_loaders in zip(pids, texts, loaders, strict=True)
        ]

    def _standing(
        self, local_rank: int, beat: Beat, now: float, state: str, place: Place
    ) -> Standing:
        return Standing(
            rank=self.node_rank * self.ranks + local_rank,
            node=self.node,
            node_rank=self.node_rank,
            phase=beat.phase,
            steps_done=beat.steps_done,
            epoch=beat.epoch,
            step=beat.step,
            quiet=round(now - beat.time, 1),
            limit=limit_seconds(self.minutes, beat),
            state=state,
            place=place.text,
            waits=place.waits,
        )

    def _write(self, standing: Sequence[Standing], texts: Mapping[Standing, str]) -> None:
        folder = self.folder / STACKS_DIR
        folder.mkdir(exist_ok=True)
        for one, text in texts.items():
            write_atomic(folder / f"start-{self.start}-rank-{one.rank:03d}.txt", f"{one}\n{text}")
        name = REPORT_PATTERN.replace("*", f"{self.start}-node-{self.node_rank}")
        write_atomic(self.folder / name, json.dumps([asdict(one) for one in standing]))

    def _reports(self) -> list[Standing]:
        """What other nodes have written down about this start."""
        found: list[Standing] = []
        for path in self.folder.glob(REPORT_PATTERN.replace("*", f"{self.start}-node-*")):
            try:
                found += checked(list[Standing], read_json(path), path)
            except (BadRecord, FileNotFoundError) as error:
                print(f"rtdetr: {error}", flush=True)
        return [one for one in found if one.node_rank != self.node_rank]


def remove_reports(folder: Path) -> None:
    """Remove what the nodes of an earlier start have written down for each other."""
    for path in folder.glob(REPORT_PATTERN):
        path.unlink(missing_ok=True)


def hang_minutes(environ: Mapping[str, str], asked: float) -> float:
    """The limit: the launch's, else the spec's.

    Raises:
        SiteError: the launch's is no number.
    """
    told = environ.get(Env.HANG_MINUTES)
    if told is None:
        return asked
    try:
        minutes = float(told)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise SiteError(f"{Env.HANG_MINUTES} is '{told}', which is not a number of minutes")
    return minutes


def in_time(write: Callable[[], None]) -> bool:
    """Do something with files; what takes too long is left behind. Returns whether it came back."""

    def try_it() -> None:
        try:
            write()
        except OSError as error:
            print(f"rtdetr: cannot use {error.filename}: {error.strerror}", flush=True)
        except UserError as error:
            print(f"rtdetr: {error}", flush=True)

    helper = threading.Thread(target=try_it, daemon=True)
    with suppress(RuntimeError):  # no thread left to have
        helper.start()
        helper.join(_WRITE_SECONDS)
        if helper.is_alive():
            print("rtdetr: the results folder does not answer", flush=True)
    return not helper.is_alive()
