"""Processes that want the same object: one brings it; one that is killed is taken over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from archives import packed

from rtdetr_slurm.plan.staging import ObjectKind, StagedObject, Store
from rtdetr_slurm.staging import claims
from rtdetr_slurm.staging.entries import all_keys, read_entry
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.upkeep import damage, kept_in
from tests.object_store import Faults

IMAGES = {f"images/{number:04}.jpg": os.urandom(40_000) for number in range(1_000)}
PROGRAM = """
import sys
from pathlib import Path
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.staging.fetch import fetch
uri, cache, url, kind = sys.argv[1:]
entry = fetch(StagedObject(uri, kind), Path(cache), Store(url), tell=print)
print("there", entry.key, entry.files)
"""


def start(
    uri: str, cache: Path, store: Store, kind: ObjectKind = "archive"
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, uri, str(cache), str(store.endpoint_url), kind]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], cache: Path, pattern: str) -> None:
    while not [*cache.glob(pattern)]:
        assert process.poll() is None
        time.sleep(0.01)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".zip"])
def test_a_killed_one_leaves_nothing_broken_and_the_next_finishes(
    suffix: str, bucket: Any, faulty: tuple[Store, Faults], cache: Path
) -> None:
    store, faults = faulty
    uri = f"s3://data/killed/images{suffix}"
    bucket(f"killed/images{suffix}", packed(IMAGES, suffix))
    faults.before = lambda method, path: time.sleep(0.3) if len(faults.of("GET")) > 2 else None
    process = start(uri, cache, store)
    wait_for(process, cache, "*/work-1/content/images/images/*5.jpg")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [key] = all_keys(cache)
    assert read_entry(cache / key) is None
    assert [*cache.glob("*/work-1")]
    faults.clear()
    began = time.monotonic()
    entry = fetch(StagedObject(uri, "archive"), cache, store, tell=lambda _: None)
    assert time.monotonic() - began < 60, "who is gone from this machine is not waited for"
    found = {path.name: path.read_bytes() for path in entry.path.rglob("*.jpg")}
    assert found == {name.removeprefix("images/"): data for name, data in IMAGES.items()}
    assert [path.name for path in (cache / key).iterdir() if path.name.startswith("work")] == []


@pytest.mark.parametrize("kind", ["archive", "file"])
def test_one_that_hangs_is_taken_over_and_finds_all_done_when_it_comes_back(
    kind: ObjectKind,
    bucket: Any,
    faulty: tuple[Store, Faults],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "DEAD_S", 3.0)
    store, faults = faulty
    bucket("hangs/images.tar", packed(IMAGES, ".tar"))
    faults.before = lambda method, path: time.sleep(0.3) if len(faults.of("GET")) > 2 else None
    process = start("s3://data/hangs/images.tar", cache, store, kind)
    wait_for(process, cache, "*/work-1/content/*")
    process.send_signal(signal.SIGSTOP)
    faults.clear()
    one = StagedObject("s3://data/hangs/images.tar", kind)
    entry = fetch(one, cache, store, tell=lambda _: None)
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0].splitlines()[-1] == f"there {entry.key} {entry.files}"
    assert process.returncode == 0
    [kept] = kept_in(cache)
    assert [*damage(kept)] == []
    assert [path.name for path in kept.folder.glob("work-*")] == []


def test_of_ten_at_once_one_brings_it(
    bucket: Any, faulty: tuple[Store, Faults], cache: Path
) -> None:
    store, faults = faulty
    bucket("ten/images.tar.gz", packed(IMAGES, ".tar.gz"))
    faults.before = lambda method, path: time.sleep(0.2)
    processes = [start("s3://data/ten/images.tar.gz", cache, store) for _ in range(10)]
    told = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 10
    assert len({text.splitlines()[-1] for text in told}) == 1
    asked = faults.of("GET", "images.tar.gz")
    assert len(asked) == len({*asked}), "every piece once"
    assert len(faults.of("HEAD")) == 10
