"""What broke off is gone on with: of what has come, nothing is asked for again."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from archives import packed, tar_of
from stores import both_servers

from rtdetr_slurm.plan.staging import ObjectKind, StagedObject, Store
from rtdetr_slurm.staging import download
from rtdetr_slurm.staging import fetch as fetching
from rtdetr_slurm.staging.entries import all_keys, read_entry
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.progress import Progress, Stopped
from rtdetr_slurm.storage import stream
from rtdetr_slurm.storage.base import Changed, Unreachable
from tests.object_store import Faults

pytestmark = both_servers
PIECE = 10_000
IMAGES = {f"images/{number}.jpg": os.urandom(3_000) for number in range(40)}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART_BYTES", PIECE)
    monkeypatch.setattr(
        stream.ObjectStream.__init__, "__kwdefaults__", {"piece": PIECE, "on_bytes": lambda _: None}
    )
    monkeypatch.setattr(fetching, "PIECE_BYTES", PIECE)


def broken(one: StagedObject, cache: Path, store: Store) -> None:
    with pytest.raises(Unreachable):
        fetch(one, cache, store, tell=lambda _: None)
    [key] = all_keys(cache)
    assert read_entry(cache / key) is None


def test_a_file_goes_on(bucket: Any, faulty: tuple[Store, Faults], cache: Path) -> None:
    store, faults = faulty
    content = os.urandom(10 * PIECE + 7)
    bucket("resume/x.pth", content)
    faults.add("drop", "GET", f"bytes={9 * PIECE}-", times=99)
    one = StagedObject("s3://data/resume/x.pth", "file")
    broken(one, cache, store)
    come = {*faults.of("GET")} - {f"bytes={9 * PIECE}-{10 * PIECE - 1}"}
    faults.clear()
    told: list[Progress] = []
    entry = fetch(one, cache, store, tell=told.append)
    assert entry.path.read_bytes() == content
    assert f"bytes={9 * PIECE}-{10 * PIECE - 1}" in faults.of("GET")
    assert len(come & {*faults.of("GET")}) <= 1, "what was under way when it broke off"
    assert told[-1].bytes == len(content)


@pytest.mark.parametrize("kind", ["archive", "folder"])
def test_many_files_go_on(
    kind: ObjectKind, bucket: Any, faulty: tuple[Store, Faults], cache: Path
) -> None:
    store, faults = faulty
    if kind == "archive":
        bucket("resume/images.tar", tar_of(IMAGES))
        one = StagedObject("s3://data/resume/images.tar", kind)
        faults.add("refuse", "GET", f"bytes={9 * PIECE}-", times=99)
    else:
        for name, content in IMAGES.items():
            bucket(f"resume/tree/{name}", content)
        one = StagedObject("s3://data/resume/tree", kind)
        faults.add("refuse", "GET", "images/9.jpg", times=99)
    broken(one, cache, store)
    before = len({*faults.requests})
    faults.clear()
    entry = fetch(one, cache, store, tell=lambda _: None)
    found = {path.name: path.read_bytes() for path in entry.path.rglob("*.jpg")}
    assert found == {name.removeprefix("images/"): data for name, data in IMAGES.items()}
    if kind == "archive":
        starts = {int(asked[6:].partition("-")[0]) for asked in faults.of("GET")}
        # But for its beginning, which says what it is. How many pieces had come is chance.
        assert min(starts - {0}) >= 4 * PIECE
    else:
        assert 0 < len(faults.of("GET", "images/")) < before


@pytest.mark.parametrize("kind", ["file", "archive"])
def test_what_was_stopped_goes_on(kind: ObjectKind, bucket: Any, store: Store, cache: Path) -> None:
    bucket("resume/stopped.tgz", packed(IMAGES, ".tgz"))
    one = StagedObject("s3://data/resume/stopped.tgz", kind)
    for _ in range(2):  # also where nothing new is written for long
        looked = iter([False] * 3)
        with pytest.raises(Stopped):
            fetch(one, cache, store, tell=lambda _: None, stopped=partial(next, looked, True))
    entry = fetch(one, cache, store, tell=lambda _: None)
    assert entry.files == (1 if kind == "file" else len(IMAGES))


def test_what_is_below_a_prefix_changes_midway(
    bucket: Any, faulty: tuple[Store, Faults], cache: Path
) -> None:
    store, faults = faulty
    bucket("changing/a", b"a")

    def add_one(method: str, path: str) -> None:
        if len(faults.of("GET", "list-type=2")) == 1:
            bucket("changing/b", b"b")

    faults.before = add_one
    one = StagedObject("s3://data/changing", "folder")
    with pytest.raises(Changed, match="and is 2 bytes now"):
        fetch(one, cache, store, tell=lambda _: None)
    assert fetch(one, cache, store, tell=lambda _: None).files == 2


@pytest.mark.parametrize("kind", ["file", "archive"])
def test_what_changes_midway_is_told_and_fetched_anew(
    kind: ObjectKind, bucket: Any, faulty: tuple[Store, Faults], cache: Path
) -> None:
    store, faults = faulty
    bucket("resume/changing.tar", tar_of(IMAGES))
    other = dict.fromkeys(IMAGES, b"other" * 600)

    def change(method: str, path: str) -> None:
        if len(faults.of("GET")) == 3:
            bucket("resume/changing.tar", tar_of(other))

    faults.before = change
    one = StagedObject("s3://data/resume/changing.tar", kind)
    with pytest.raises(Changed, match="was changed while it was read"):
        fetch(one, cache, store, tell=lambda _: None)
    assert not [*cache.glob("*/work-*")]
    assert not [*cache.glob("*/content")]
    entry = fetch(one, cache, store, tell=lambda _: None)
    if kind == "archive":
        assert {path.read_bytes() for path in entry.path.rglob("*.jpg")} == {b"other" * 600}
