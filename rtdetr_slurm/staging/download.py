"""One object into one file, in many pieces at once. Standard library only."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.contract import CACHE_VERSION
from rtdetr_slurm.errors import explained
from rtdetr_slurm.files import append_json_line
from rtdetr_slurm.records import checked_lines
from rtdetr_slurm.staging.progress import Ticker
from rtdetr_slurm.storage.base import ObjectInfo, Reader

PART_BYTES = 16 << 20
_THREADS = 8
_LOOK_S = 0.5


@dataclass(frozen=True)
class _Part:
    """A piece that is in its place on the disk, a line of the journal."""

    part: int


def download(reader: Reader, info: ObjectInfo, path: Path, journal: Path, ticker: Ticker) -> None:
    """Fetch what is not there yet.

    Args:
        journal: which pieces are.

    Raises:
        UserError: of `reader`, of the disk, of `ticker`.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise explained(error) from error
    # What is still under way when this fails has a descriptor of its own to write to.
    with closing(os.fdopen(fd, "r+b", buffering=0)) as file:
        if os.fstat(fd).st_size == info.size:
            done = {one.part for _, one in checked_lines(_Part, journal, CACHE_VERSION)}
        else:
            journal.unlink(missing_ok=True)
            file.truncate(info.size)
            done = set()
    missing = [one for one in range(-(-info.size // PART_BYTES)) if one not in done]
    ticker.add(sum(_length(info, one) for one in done))

    def fetch(part: int) -> int:
        content = reader.read_range(part * PART_BYTES, _length(info, part))
        try:
            with path.open("r+b", buffering=0) as file:
                file.seek(part * PART_BYTES)
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fdatasync(file.fileno())  # before the journal says so
        except OSError as error:
            raise explained(error) from error
        return part

    pool = ThreadPoolExecutor(_THREADS if reader.ranged else 1)
    try:
        under_way = {pool.submit(fetch, one) for one in missing}
        while under_way:
            finished, under_way = wait(under_way, _LOOK_S, FIRST_COMPLETED)
            for one in finished:
                append_json_line(journal, {"part": one.result()})
                ticker.add(_length(info, one.result()))
            ticker.check()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _length(info: ObjectInfo, part: int) -> int:
    return min(PART_BYTES, info.size - part * PART_BYTES)
