"""Copies of images on a node's own disk, which all jobs of a user there share. Standard library
only.

    <scratch>/rtdetr-slurm-<uid>/<key>/
        lock      held by who makes, repairs or removes the copy, and says how far that is; dated
                  when the copy was last wanted
        images/   the copy, whole
        part/     what there is of it until then; temporary/: files that are being written
        users/    processes whose container sees it, by id; and tasks that are about to start one

The disk is the node's own, so that locks work and end with their process, and dates are of one
clock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.scratch import own_folder
from rtdetr_slurm.plan.model import Bind, Stage, StageTask
from rtdetr_slurm.records import checked, names_in, read_json
from rtdetr_slurm.runs.processes import is_alive, process_facts
from rtdetr_slurm.runs.run import Run

COPIES_JSON = "copies.json"
"""In a node's own folder: what the node has copies of, once it has them all."""
COPYING_FILE = "copying"
"""In a node's own folder: how far it is."""
KEY_DIGITS = 40
_RESERVED_S = 2 * 3600.0
"""So long is a copy kept for a task whose other nodes still make theirs."""
_POLL_S = 1.0
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


@dataclass(frozen=True)
class Copied:
    """A folder on the shared file system, and the copy of it."""

    source: str
    key: str

    def __post_init__(self) -> None:
        if not re.fullmatch(f"[0-9a-f]{{{KEY_DIGITS}}}", self.key):
            raise ValueError(f"{self.key!r} is no key")


class LocalCopy:
    """One copy, there or not."""

    def __init__(self, root: Path, key: str) -> None:
        self.folder, self.key = root / key, key
        self.images, self.part = self.folder / "images", self.folder / "part"
        self._lock, self._users = self.folder / "lock", self.folder / "users"

    @contextmanager
    def held(self, on_wait: Callable[[str], object]) -> Iterator[None]:
        """Have it alone, once nobody else has.

        Args:
            on_wait: is told every second what who has it says; what it raises ends the wait.

        Raises:
            SiteError: the file system takes no locks.
            OSError: it fails.
        """
        self._users.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            while not self._is_mine(fd):
                on_wait(os.pread(fd, 200, 0).decode(errors="replace"))
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(fd)

    def _is_mine(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise SiteError(
                    f"{self.folder.parent} takes no locks ({error.strerror}), so it is no disk of "
                    "the node's own; scratch in the site profile must name one"
                ) from error
            raise
        return True

    # --- by who holds it ---------------------------------------------------------------------
    def say(self, text: str) -> None:
        """For those who wait."""
        self._lock.write_text(text)

    def reserve(self, task: str) -> None:
        """Keep it for a task that is about to use it."""
        (self._users / task).touch()
        os.utime(self._lock)

    def take(self, task: str) -> None:
        """Keep it for as long as this process lives, instead of for its task."""
        pid = str(os.getpid())
        (self._users / pid).write_text(str(process_facts(pid)["process_start"]))
        (self._users / task).unlink(missing_ok=True)

    def is_used(self) -> bool:
        """Whether a job that runs uses it, or is about to."""
        return any(self._is_user(name) for name in names_in(self._users))

    def _is_user(self, name: str) -> bool:
        path = self._users / name
        if not name.isdecimal():
            return time.time() - path.stat().st_mtime < _RESERVED_S
        told = path.read_text()
        facts = process_facts(name) | {"process_start": int(told) if told.isdecimal() else None}
        if is_alive(name, facts) is False:
            path.unlink(missing_ok=True)
            return False
        return True

    def remove(self) -> None:
        """Make room; what is gone half-way counts as no copy."""
        shutil.rmtree(self.part, ignore_errors=True)
        with suppress(OSError):  # another may make enough
            self.images.rename(self.part)
            shutil.rmtree(self.part)

    @property
    def last_wanted(self) -> float:
        """Seconds since 1970."""
        return self._lock.stat().st_mtime if self._lock.exists() else 0.0


def task_mark(run: Run, task: StageTask) -> str:
    """The name under which a task keeps copies; no process has it as its id."""
    return f"{run.id}.{task.name}"


def take_copies(run: Run, task: StageTask, rank: int, scratch: str | None) -> dict[str, Path]:
    """The copies that this node has made for a task, by the folders that they are of; kept from
    now on for as long as this process lives.

    Raises:
        SiteError: one of them has gone.
        BadRecord: what the node has cannot be read.
        OSError: likewise.
    """
    if not task.stage.local_copy or scratch is None:
        return {}
    path = run.node_dir(task, rank) / COPIES_JSON
    found = checked(tuple[Copied, ...], read_json(path), path)
    root = own_folder(scratch)
    copies = {}
    for one in found:
        copy = LocalCopy(root, one.key)
        with copy.held(lambda _: None):
            if not copy.images.is_dir():
                raise SiteError(f"{copy.images}, the copy of {one.source}, has gone from this node")
            copy.take(task_mark(run, task))
        copies[one.source] = copy.images
    return copies


def with_copies(
    stage: Stage, binds: Sequence[Bind], copies: dict[str, Path]
) -> tuple[Stage, tuple[Bind, ...]]:
    """A stage and further binds of its container, which sees copies where their originals are."""
    if stage.container is None or not copies:
        return stage, tuple(binds)
    instead = [Bind(str(copy), source, read_only=True) for source, copy in copies.items()]

    def others(given: Sequence[Bind]) -> tuple[Bind, ...]:
        return tuple(bind for bind in given if bind.target not in copies)

    container = replace(stage.container, binds=others(stage.container.binds))
    return replace(stage, container=container), (*others(binds), *instead)
