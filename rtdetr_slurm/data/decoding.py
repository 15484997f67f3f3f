"""Every image of a source, decoded by several processes. Pillow is loaded by those that decode."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.data.archives import ERRORS, is_archive, open_archive
from rtdetr_slurm.data.check_images import Look, unreadable
from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.image_sizes import Header, Size, size_mismatch
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.lifetime import end_with

CHUNK = 32
"""Images that a process is given at a time."""

Told = Callable[[Path, int, int], None]
"""Is told of a folder how many of how many of its images have been decoded; what it raises ends
that."""


@dataclass(frozen=True)
class Decoded:
    """What has come of an image file.

    Attributes:
        name: below its folder.
        digest: of the file's content; empty where it cannot be read.
        problem: why it cannot be used, in words that follow its name; empty: it can.
        turned: whether it is turned without a trace in the size that it is annotated with.
    """

    name: str
    digest: bytes
    problem: str = ""
    turned: bool = False


class DecodeImages:
    """Looks into all images of the sources that it is shown, of each source once; its processes
    end with the block that it is opened for.

    Attributes:
        digests: source, as folder and annotation file, to content of a file to names of images.
    """

    def __init__(self, workers: int, told: Told | None = None) -> None:
        """Args:
        workers: processes; 1: this one alone.
        """
        self._workers = workers
        self._told = told
        self._pool: ProcessPoolExecutor | None = None
        self._looks: dict[tuple[Path, Path], Look] = {}
        self.digests: dict[tuple[Path, Path], dict[bytes, list[str]]] = {}

    def __enter__(self) -> DecodeImages:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def wrong(self) -> list[tuple[Path, str]]:
        """All images that cannot be used, and why, in words that follow the name."""
        return [
            (folder / name, problem)
            for (folder, _), look in self._looks.items()
            for name, problem in look.wrong
        ]

    def __call__(
        self, folder: Path, annotations: CocoAnnotations, missing: Collection[str]
    ) -> Look:
        """Decode what is not missing.

        Raises:
            ActionError: a process that decoded was killed.
        """
        source = folder, annotations.path
        if source not in self._looks:
            self._looks[source] = self._decode(folder, annotations, missing)
        return self._looks[source]

    def _decode(self, folder: Path, annotations: CocoAnnotations, missing: Collection[str]) -> Look:
        stated = zip(annotations.widths, annotations.heights, strict=True)
        tasks = {
            name: size
            for name, size in zip(annotations.file_names, stated, strict=True)
            if name not in missing
        }
        look = Look(len(tasks), [], [])
        digests = self.digests.setdefault((folder, annotations.path), {})
        for number, one in enumerate(self._results(folder, [*tasks.items()]), start=1):
            if one.digest:
                digests.setdefault(one.digest, []).append(one.name)
            if one.problem:
                look.wrong.append((one.name, one.problem))
            if one.turned:
                look.turned.append(one.name)
            if self._told is not None:
                self._told(folder, number, len(tasks))
        return look

    def _results(self, folder: Path, tasks: Sequence[tuple[str, Size]]) -> Iterator[Decoded]:
        if is_archive(folder):
            yield from _of_archive(folder, tasks)
            return
        chunks = [tasks[at : at + CHUNK] for at in range(0, len(tasks), CHUNK)]
        work = partial(decode_some, folder)
        if self._workers == 1 or len(chunks) < 2:
            for chunk in chunks:
                yield from work(chunk)
            return
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                get_context("spawn"),  # whoever asks may have threads
                initializer=end_with,
                initargs=(os.getpid(),),
            )
        try:
            for some in self._pool.map(work, chunks):
                yield from some
        except BrokenProcessPool:
            raise ActionError(
                f"a process that decoded images of {folder} was killed, probably because the "
                "memory did not suffice; give the job more of it, or fewer CPUs",
                FailureClass.OOM_HOST,
            ) from None


def decode_some(folder: Path, tasks: Sequence[tuple[str, Size]]) -> list[Decoded]:
    """Decode images one after the other.

    Args:
        tasks: names, and the sizes that they are annotated with.
    """
    return [_decode_one(folder, name, stated) for name, stated in tasks]


def _of_archive(archive: Path, tasks: Sequence[tuple[str, Size]]) -> Iterator[Decoded]:
    """Images of an archive in its order, which is the cheapest."""
    opened = open_archive(archive)
    for name, stated in tasks:
        try:
            content = opened.read(name)
        except ERRORS as error:
            yield Decoded(name, b"", f"cannot be read: {error or type(error).__name__}")
        else:
            yield _decode(name, archive / name, content, stated)


def _decode_one(folder: Path, name: str, stated: Size) -> Decoded:
    path = folder / name
    try:
        content = path.read_bytes()
    except OSError as error:
        return Decoded(name, b"", unreadable(path, error))
    return _decode(name, path, content, stated)


def _decode(name: str, path: Path, content: bytes, stated: Size) -> Decoded:
    from rtdetr_slurm.data.pixels import BadImage, open_image_file

    digest = hashlib.blake2b(content, digest_size=16).digest()
    opened = open_image_file(path, content)
    if isinstance(opened, BadImage):
        return Decoded(name, digest, opened.reason)
    decoded = opened.decode()
    if isinstance(decoded, BadImage):
        return Decoded(name, digest, decoded.reason)
    if problem := size_mismatch(stated, opened.size):
        return Decoded(name, digest, problem)
    turned = Header((opened.size,), opened.orientation).is_turned_unseen(stated)
    return Decoded(name, digest, turned=turned)
