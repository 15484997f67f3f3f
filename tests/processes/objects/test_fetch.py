"""Objects come into the cache from a real S3 server over HTTP, and are there for who asks again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import IMAGES, packed
from stores import both_servers

from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.staging.entries import read_entry, read_files
from rtdetr_slurm.staging.fetch import cached, fetch, look
from rtdetr_slurm.staging.progress import Progress

pytestmark = both_servers
SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_is_unpacked_below_a_folder_of_its_name(
    suffix: str, bucket: Any, store: Store, cache: Path
) -> None:
    bucket(f"train/images{suffix}", packed(IMAGES, suffix))
    one = StagedObject(f"s3://data/train/images{suffix}", "archive")
    told: list[Progress] = []
    entry = fetch(one, cache, store, tell=told.append)
    assert tree(entry.path) == {f"images/{name}": data for name, data in IMAGES.items()}
    assert (entry.files, entry.bytes) == (len(IMAGES), sum(map(len, IMAGES.values())))
    assert told[-1].bytes == told[-1].size == entry.size
    assert cached(one, cache, look(one, store)) == entry
    folder = cache / entry.key
    assert [one.name for one in read_files(folder / "files.jsonl")] == sorted(tree(entry.path))
    assert not [*folder.glob("work-*")]


def test_only_what_annotations_name_is_unpacked(bucket: Any, store: Store, cache: Path) -> None:
    bucket("some/images.tar.gz", packed(IMAGES, ".tar.gz"))
    names = ["images/003.jpg", "004.jpg", "./images/005.jpg"]
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    bucket("some/annotations.json", json.dumps({"images": images}))
    one = StagedObject("s3://data/some/images.tar.gz", "archive", "s3://data/some/annotations.json")
    entry = fetch(one, cache, store, tell=lambda _: None)
    assert sorted(tree(entry.path)) == [f"images/images/00{number}.jpg" for number in (3, 4, 5)]
    everything = fetch(StagedObject(one.uri, "archive"), cache, store, tell=lambda _: None)
    assert everything.files == len(IMAGES)
    assert everything.key != entry.key


def test_a_file_and_all_below_a_prefix(bucket: Any, store: Store, cache: Path) -> None:
    bucket("tree/a.json", b"{}")
    bucket("tree/deep/er/b.jpg", b"b" * 1000)
    bucket("tree/empty", b"")
    file = fetch(StagedObject("s3://data/tree/a.json", "file"), cache, store, tell=lambda _: None)
    assert file.path.read_bytes() == b"{}"
    assert file.path.name == "a.json"
    folder = fetch(StagedObject("s3://data/tree", "folder"), cache, store, tell=lambda _: None)
    assert tree(folder.path) == {
        "tree/a.json": b"{}",
        "tree/deep/er/b.jpg": b"b" * 1000,
        "tree/empty": b"",
    }


def test_another_content_is_another_entry(bucket: Any, store: Store, cache: Path) -> None:
    one = StagedObject("s3://data/changing.json", "file")
    found = []
    for content in (b"[1]", b"[2]"):
        bucket("changing.json", content)
        found.append(fetch(one, cache, store, tell=lambda _: None))
    assert [entry.path.read_bytes() for entry in found] == [b"[1]", b"[2]"]
    assert all(read_entry(cache / entry.key) == entry for entry in found)
