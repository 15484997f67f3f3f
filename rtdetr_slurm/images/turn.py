"""One maker of an image at a time, over all nodes that see its folder."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.files import write_new
from rtdetr_slurm.records import BadRecord, checked, read_json
from rtdetr_slurm.runs.processes import is_alive, process_facts, user_name

BEAT_S = 30.0
"""So often the maker touches its file."""
SILENT_S = 10 * BEAT_S
"""A maker on another machine that has not for so long is taken for dead."""


@dataclass(frozen=True)
class Maker:
    """Who makes an image.

    Attributes:
        partial: name of the file, beside the image, that it writes.
    """

    token: str
    user: str
    host: str
    pid: int
    process_start: int | None
    partial: str


@contextmanager
def turn(target: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Be the only one who makes `target`; gives the file to write, and what says "I still live".

    What a maker that is dead by now has left is removed.

    Raises:
        SiteError: somebody else makes it, or nothing can be written there.
    """
    path = target.with_name(f".{target.name}.maker")
    token = secrets.token_hex(8)
    me = Maker(
        token=token,
        user=user_name(),
        pid=os.getpid(),
        partial=f".{target.name}.{token}.partial",
        **process_facts(str(os.getpid())),
    )
    _take(path, me)
    partial = target.with_name(me.partial)
    try:
        yield partial, lambda: _beat(path)
    finally:
        partial.unlink(missing_ok=True)
        if (held := _read(path)) is not None and held.token == token:
            path.unlink(missing_ok=True)


def _take(path: Path, me: Maker) -> None:
    for _ in range(3):  # each round ends with a dead maker's file out of the way
        try:
            write_new(path, json.dumps(asdict(me)) + "\n")
            return
        except FileExistsError:
            _make_room(path, me)
        except OSError as error:
            raise SiteError(f"{path.parent} cannot be written to: {error.strerror}") from error
    raise SiteError(f"others are taking turns at {path}; try again")


def _make_room(path: Path, me: Maker) -> None:
    held = _read(path)
    if held is None:
        return
    if not _is_dead(path, held):
        raise SiteError(
            f"{held.user} makes this image at present, on {held.host} (process {held.pid}); wait "
            f"for it. If you know that it has ended, remove {path}"
        )
    aside = path.with_name(f"{path.name}.{me.token}")
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
        moved = _read(aside)
        if moved is not None and moved.token != held.token:
            # Somebody was quicker, and lives: this is the new maker's.
            with contextlib.suppress(OSError):
                os.link(aside, path)
        else:
            path.with_name(Path(held.partial).name).unlink(missing_ok=True)
        aside.unlink()


def _is_dead(path: Path, held: Maker) -> bool:
    alive = is_alive(str(held.pid), asdict(held))
    if alive is not None:
        return not alive
    try:
        return _now_there(path.parent) - path.stat().st_mtime > SILENT_S
    except FileNotFoundError:
        return False


def _now_there(folder: Path) -> float:
    """The time by the clock that dates the files of a folder, which may be a file server's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock.") as probe:
        return Path(probe.name).stat().st_mtime


def _beat(path: Path) -> None:
    with contextlib.suppress(OSError):  # the next one may arrive
        os.utime(path)


def _read(path: Path) -> Maker | None:
    """None: it is gone.

    Raises:
        SiteError: there is something else in its place.
    """
    try:
        return checked(Maker, read_json(path), path)
    except FileNotFoundError:
        return None
    except BadRecord as error:
        raise SiteError(f"{error}; it should say who makes the image: remove it") from error
