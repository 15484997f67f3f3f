"""Copies of images on a node's own disk: whole or not there, one for all jobs, removed for room."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from archives import IMAGES, tar_of
from launch_support import STAGE, make_run

from rtdetr_slurm.contract import STOP_SIGNAL, Env, ExitCode, FailureClass
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.launch import arrivals, copies
from rtdetr_slurm.launch.arrivals import LIMIT_S, Copying
from rtdetr_slurm.launch.copies import COPIES_JSON, COPYING_FILE, take_copies, with_copies
from rtdetr_slurm.launch.inputs import INPUTS_JSON, Resolved
from rtdetr_slurm.launch.node_errors import read_node_errors
from rtdetr_slurm.launch.scratch import own_folder
from rtdetr_slurm.plan.model import Bind, Resources, StageTask
from rtdetr_slurm.plan.staging import StagedObject, Store
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.live import read_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.staging import local_copy
from rtdetr_slurm.staging.fetch import fetch
from rtdetr_slurm.staging.local_copy import files_below, local_copy_of
from rtdetr_slurm.staging.node_copy import run_copy
from rtdetr_slurm.staging.progress import Stopped

FIELD = "dataset.train_data_sources.0.image_dir"


class Node(NamedTuple):
    root: Path
    source: Path

    def copy(self, mark: str = "run.train", **more: object) -> copies.LocalCopy:
        given = {"tell": lambda _: None, "stopped": lambda: False, **more}
        return local_copy_of(self.source, self.root, mark, **given)  # type: ignore[arg-type]


def in_cache(folder: Path, images: Mapping[str, bytes], name: str = "images") -> Path:
    """The folder of an archive in a cache."""
    (folder / f"{name}.tar").write_bytes(tar_of(images))
    one = StagedObject(str(folder / f"{name}.tar"), "archive")
    return fetch(one, folder / "cache", Store(), tell=lambda _: None).path / name


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(copies, "_POLL_S", 0.01)
    (tmp_path / "scratch").mkdir()
    return Node(own_folder(str(tmp_path / "scratch")), in_cache(tmp_path, IMAGES))


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_copy_is_made_once_and_found_by_the_next(node: Node) -> None:
    said: list[str] = []
    copy = node.copy(say=said.append)
    assert content(copy.images) == content(node.source) != {}
    before = {path: path.stat().st_ino for path in copy.images.rglob("*")}
    assert node.copy("other.train", say=said.append).images == copy.images
    assert before == {path: path.stat().st_ino for path in copy.images.rglob("*")}
    assert "copied in" in said[0]
    assert said[1].endswith("already")


def test_what_has_gone_or_was_cut_off_comes_again(node: Node) -> None:
    copy = node.copy()
    first, second, *_ = (path for path in copy.images.rglob("*") if path.is_file())
    first.write_bytes(first.read_bytes()[:-1])
    second.unlink()
    assert content(node.copy().images) == content(node.source)


def test_a_link_in_its_place_is_none(node: Node, tmp_path: Path) -> None:
    copy = node.copy()
    path = next(path for path in copy.images.rglob("*") if path.is_file())
    shutil.copy(path, tmp_path / "elsewhere")
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    node.copy()
    assert not path.is_symlink()


def test_of_a_killed_copy_only_what_is_right_counts(node: Node) -> None:
    """A machine that lost its power may have left files of the right size without their content."""
    files = files_below(node.source)
    stopped = [False, *([True] * 99)]
    with pytest.raises(Stopped):
        node.copy(stopped=lambda: stopped.pop(0))
    [copy] = node.root.iterdir()
    assert not (copy / "images").exists()
    torn = copy / "part" / files[0].name
    torn.parent.mkdir(parents=True, exist_ok=True)
    torn.write_bytes(b"\0" * files[0].size)
    assert content(node.copy().images) == content(node.source)
    assert not (copy / "part").exists()


def test_what_is_damaged_in_the_cache_is_not_copied(node: Node) -> None:
    damaged = next(path for path in node.source.rglob("*") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    with pytest.raises(RequestError, match="is not as it was brought"):
        node.copy()
    [copy] = node.root.iterdir()
    assert not (copy / "images").exists()


def test_who_comes_second_waits_for_the_copy_of_the_first(node: Node) -> None:
    copy = node.copy()
    told: list[str] = []
    with copy.held(pytest.fail):
        copy.say("1 GB of 9 GB")
        waits = threading.Thread(
            target=lambda: node.copy(tell=lambda progress: told.append(str(progress)))
        )
        waits.start()
        while not told:
            time.sleep(0.01)
        copy.remove()  # as if it were not there yet
    waits.join(5)
    assert "waits for another job here (1 GB of 9 GB)" in told[0]
    assert content(copy.images) == content(node.source)


def test_old_copies_make_room_and_those_in_use_do_not(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(name: str, age: float) -> copies.LocalCopy:
        made = node._replace(source=in_cache(tmp_path, {f"{name}.jpg": b"x" * 9000}, name)).copy()
        os.utime(made.folder / "lock", (time.time() - age,) * 2)
        os.utime(made.folder / "users" / "run.train", (0, 0))
        return made

    oldest, used, older, awaited = (
        other(name, age) for name, age in (("a", 400.0), ("b", 300.0), ("c", 200.0), ("d", 100.0))
    )
    used.take("run.train")
    awaited.reserve("other.evaluate")
    os.utime(awaited.folder / "lock", (0, 0))
    bigger = node._replace(source=in_cache(tmp_path, {**IMAGES, "more.jpg": b"y"}, "e"))
    there = [oldest, used, older, awaited]
    most = room_for(node.source) + 3 * 9000

    def usage(_: Path) -> SimpleNamespace:
        return SimpleNamespace(free=most - 9000 * sum(one.images.exists() for one in there))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    node.copy()
    assert [one.images.exists() for one in there] == [False, True, True, True]
    most = room_for(bigger.source) + 2 * 9000 - 1
    with pytest.raises(SiteError, match=r"takes 67.* MB on .* has 67.* MB left, and 3 copies"):
        bigger.copy()
    assert [one.images.exists() for one in there] == [False, True, False, True]


def room_for(source: Path) -> int:
    blocks = sum(-(-one.size // 4096) for one in files_below(source))
    return local_copy._SPARE_BYTES + 4096 * blocks


def test_a_process_that_has_ended_uses_nothing(node: Node) -> None:
    copy = node.copy()
    (copy.folder / "users" / "run.train").unlink()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    start = copies.process_facts(str(child.pid))["process_start"]
    mark = copy.folder / "users" / str(child.pid)
    mark.write_text(str(start))
    assert copy.is_used()
    mark.write_text(str(start - 1))  # an earlier one with its id
    assert not copy.is_used()
    child.communicate(b"\n")


def test_what_is_not_in_a_cache_is_not_copied(node: Node, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is in no cache"):
        files_below(tmp_path)
    record = node.source.parents[1] / "files.jsonl"
    line = json.dumps({"name": "images/../../x", "size": 1, "sha256": "0"})
    record.write_text(record.read_text() + line + "\n")
    with pytest.raises(BadRecord, match="leads out of it"):
        files_below(node.source)


@pytest.mark.parametrize("spoil", ["link", "open", "file", "scratch"])
def test_nothing_of_others_is_trusted(spoil: str, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    folder = scratch / f"rtdetr-slurm-{os.getuid()}"
    if spoil == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "theirs")
    elif spoil == "open":
        folder.mkdir()
        folder.chmod(0o770)
    elif spoil == "file":
        folder.touch(mode=0o600)
    else:
        scratch.chmod(0o777)
    with pytest.raises(SiteError, match="sticky bit" if spoil == "scratch" else "closed to others"):
        own_folder(str(scratch))
    scratch.chmod(0o1777)
    if spoil == "scratch":
        assert own_folder(str(scratch)).stat().st_mode & 0o777 == 0o700


# --- a node of a stage -----------------------------------------------------------------------
Prepared = tuple[Run, StageTask]


@pytest.fixture
def prepared(node: Node, tmp_path: Path) -> Prepared:
    launch = replace(STAGE.launch, scheduler="local", scratch=str(node.root.parent))
    stage = replace(
        STAGE,
        launch=launch,
        resources=Resources(nodes=1, gpu_ids=(0,)),
        results_dir=str(tmp_path / "results"),
        local_copy=(FIELD,),
    )
    run = make_run(tmp_path, stage)
    task = StageTask(run.plan.stage("train"))
    run.node_dir(task, 0).mkdir()
    task.results_dir.mkdir()
    inputs = [asdict(Resolved(FIELD, str(node.source), "fetch"))]
    (run.job_dir("train") / INPUTS_JSON).write_text(json.dumps(inputs))
    return run, task


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    before = {s: signal.getsignal(s) for s in (STOP_SIGNAL, signal.SIGUSR2, signal.SIGTERM)}
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return lambda: [signal.signal(*one) for one in before.items()] and None


def test_the_container_sees_the_copy_in_the_place_of_the_original(
    prepared: Prepared, node: Node, handlers: object
) -> None:
    run, task = prepared
    assert run_copy([str(run.path), "train"]) == ExitCode.OK
    found = take_copies(run, task, 0, str(node.root.parent))
    [copy] = node.root.iterdir()
    assert found == {str(node.source): copy / "images"}
    assert [path.name for path in (copy / "users").iterdir()] == [str(os.getpid())]
    original = Bind(str(node.source), str(node.source), read_only=True)
    stage, binds = with_copies(task.stage, [original, Bind("/x", "/x")], found)
    instead = Bind(str(copy / "images"), str(node.source), read_only=True)
    assert binds == (Bind("/x", "/x"), instead)
    assert stage == task.stage
    shutil.rmtree(copy)
    with pytest.raises(SiteError, match="has gone from this node"):
        take_copies(run, task, 0, str(node.root.parent))


def test_why_a_node_cannot_copy_is_on_record(
    prepared: Prepared, node: Node, handlers: object
) -> None:
    run, task = prepared
    node.root.chmod(0o750)
    assert run_copy([str(run.path), "train"]) == ExitCode.SITE_CANNOT
    refusal = read_node_errors(run, task)
    assert refusal is not None
    assert refusal.failure.failure_class is FailureClass.INFRA
    assert not (run.node_dir(task, 0) / COPIES_JSON).exists()


def test_a_copy_can_be_stopped_and_tells_how_far_it_is(
    prepared: Prepared, node: Node, tmp_path: Path
) -> None:
    run, task = prepared
    os.mkfifo(tmp_path / "pipe")
    blocked = next(path for path in node.source.rglob("*") if path.is_file())
    blocked.unlink()
    blocked.symlink_to(tmp_path / "pipe")  # a file server that takes its time
    argv = [sys.executable, "-m", "rtdetr_slurm.controller", "copy", str(run.path), "train"]
    environ = os.environ | {Env.CLAIM: "mine", Env.RESTART: "0"}
    with subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True) as process:
        sign = run.node_dir(task, 0) / COPYING_FILE
        with (tmp_path / "pipe").open("wb", buffering=0) as pipe:
            while not sign.exists():
                time.sleep(0.02)
            process.send_signal(STOP_SIGNAL)
            time.sleep(0.1)
            pipe.write(b"x")
        assert process.stderr is not None
        assert "stopped; what has come so far is kept" in process.stderr.read()
        assert process.wait() == ExitCode.INTERRUPTED
    assert re.match(r"copy of .*: \d.* of .* \(\d+%\)", sign.read_text())
    assert read_node_errors(run, task) is None
    live = read_live(task.results_dir, "mine")
    assert live is not None
    assert live.phase == sign.read_text().strip()


def test_only_a_copy_that_does_not_get_on_is_late(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, task = prepared
    monkeypatch.setattr(arrivals, "_LOOK_S", 0.0)
    watch = Copying(run, task, 0.0)
    sign = run.node_dir(task, 0) / COPYING_FILE
    for hours in range(5):
        sign.write_text(f"{hours} of 9 GB")
        assert watch.late(hours * LIMIT_S + 1) == []
        assert watch.late((hours + 1) * LIMIT_S) == []
    assert watch.late(6 * LIMIT_S) == [0]
    watch.refuse([0], ("node7",))
    refusal = read_node_errors(run, task)
    assert refusal is not None
    assert "node 0 (node7): its copies have not got on for 30 min" in refusal.failure.evidence
    (run.node_dir(task, 0) / COPIES_JSON).write_text("[]")
    assert watch.late(9 * LIMIT_S) == []
