"""Whose a results folder is, and who may no longer write to it."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import STAGE, claim_results, make_run

from rtdetr_slurm.contract import FailureClass, Status
from rtdetr_slurm.errors import ActionError, NewerVersion, RequestError
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.claim import (
    Claim,
    Start,
    Superseded,
    begin,
    check_latest,
    give_back,
    has_begun,
    mark_ended,
    new_claim,
    read_claim,
    start_of,
    take,
)
from rtdetr_slurm.runs.holders import report_of_record, why_in_use
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.status import StatusLog, read_status, status_lines_of

FIRST, SECOND = Start("a:train", 0), Start("a:train", 1)


def claim(name: str = "a:train", **facts: Any) -> Claim:
    return new_claim(name, **{"run_dir": "/runs/a", "stage": "train", **facts})


def no_links(monkeypatch: pytest.MonkeyPatch, refusal: int) -> None:
    """As on a file system without hard links."""

    def link(*_: object) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(os, "link", link)


# --- who gets it -------------------------------------------------------------------------------
def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    take(tmp_path, claim())
    with pytest.raises(RequestError, match=r"just been claimed by run a \(stage train\) of "):
        take(tmp_path, claim("b:train"))
    held = read_claim(tmp_path)
    assert held is not None
    assert (held.id, held.run_dir, held.restart) == ("a:train", "/runs/a", None)
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads that take turns so often that each meets the others at work."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("refusal", [None, errno.EPERM])
def test_of_many_at_once_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int | None
) -> None:
    """Also where all of them have seen the same dead claim, and where there are no hard links."""
    if refusal is not None:
        no_links(monkeypatch, refusal)
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        held, won = raced(folder)
        assert won == [held]
        assert [path.name for path in folder.iterdir()] == ["claim.json"]


def raced(folder: Path) -> tuple[str | None, list[str]]:
    """Whose the folder is in the end, and who thinks so."""
    dead = claim("dead:train")
    take(folder, dead)
    ready, won = threading.Barrier(8), []

    def attempt(number: int) -> None:
        ready.wait()
        with suppress(RequestError):
            take(folder, claim(f"{number}:train"), dead)
            won.append(f"{number}:train")

    threads = [threading.Thread(target=attempt, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    held = read_claim(folder)
    return None if held is None else held.id, won


@pytest.mark.parametrize(
    "refusal", [errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS]
)
def test_a_folder_is_claimed_once_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    no_links(monkeypatch, refusal)
    take(tmp_path, claim())
    with pytest.raises(RequestError, match=r"just been claimed by run a \(stage train\) of "):
        take(tmp_path, claim("b:train"))
    held = read_claim(tmp_path)
    take(tmp_path, claim("c:train"), held)
    after = read_claim(tmp_path)
    assert after is not None
    assert after.id == "c:train"
    assert [path.name for path in tmp_path.iterdir()] == ["claim.json"]


def test_a_full_disk_leaves_no_part_of_a_claim_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_links(monkeypatch, errno.EPERM)
    synced: list[int] = []

    def fsync(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 2:  # the first one is of the temporary file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/claim.json'"):
        take(tmp_path, claim())
    assert list(tmp_path.iterdir()) == []


def test_who_was_killed_while_taking_over_is_named(tmp_path: Path) -> None:
    dead = claim("dead:train")
    take(tmp_path, dead)
    turn = tmp_path / ".claim.json.turn"
    turn.touch()
    with pytest.raises(RequestError, match=f"claimed by another; if none uses it, remove {turn}"):
        take(tmp_path, claim(), dead)
    assert read_claim(tmp_path) == dead
    turn.unlink()
    take(tmp_path, claim(), dead)


def test_a_claim_that_is_being_written_is_not_taken_over(tmp_path: Path) -> None:
    """As it is seen for a moment where there are no hard links."""
    (tmp_path / "claim.json").write_text('{"schema_version": 1, "id": "b:tr')
    with pytest.raises(RequestError, match="this is not JSON"):
        take(tmp_path, claim(), claim("dead:train"))
    assert (tmp_path / "claim.json").exists()


def test_a_claim_that_is_given_back_just_then_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(RequestError, match=r"has just been claimed by another$"):
        take(tmp_path, claim())


def test_a_claim_that_is_not_the_dead_one_stays(tmp_path: Path) -> None:
    dead, alive = claim("dead:train"), claim("alive:train")
    take(tmp_path, alive)
    with pytest.raises(RequestError, match="just been claimed"):
        take(tmp_path, claim(), dead)
    assert read_claim(tmp_path) == alive


@pytest.mark.parametrize("former", [None, claim("before:train", restart=3)])
def test_what_was_never_used_is_given_back(tmp_path: Path, former: Claim | None) -> None:
    if former is not None:
        take(tmp_path, former)
    take(tmp_path, claim(), former)
    give_back(tmp_path, "a:train", former)
    assert read_claim(tmp_path) == former


def test_a_folder_that_is_being_taken_over_is_not_given_back(tmp_path: Path) -> None:
    take(tmp_path, claim())
    (tmp_path / ".claim.json.turn").touch()
    with pytest.raises(RequestError, match="just been claimed by another"):
        give_back(tmp_path, "a:train", None)
    assert read_claim(tmp_path) is not None


def test_what_a_job_uses_is_not_given_back(tmp_path: Path) -> None:
    take(tmp_path, claim())
    begin(tmp_path, claim(restart=0))
    give_back(tmp_path, "a:train", None)
    assert read_claim(tmp_path) is not None
    give_back(tmp_path, "another:train", None)
    assert read_claim(tmp_path) is not None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"schema_version": 1}', '{"schema_version": "1", "id": "x"}', "\udcff"],
)
def test_a_damaged_claim_is_nobodys_and_not_free(tmp_path: Path, text: str) -> None:
    path = tmp_path / "claim.json"
    path.write_bytes(os.fsencode(text))
    with pytest.raises(RequestError, match=f"{path}: .*; if no job writes to {tmp_path}, remove"):
        read_claim(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"restart": "1"}, "restart: found '1'; expected a whole number"),
        ({"host": "a\x1b[2J"}, "expected printable text"),
        ({"extra": 1}, "this version knows no such field"),
    ],
)
def test_a_claim_is_data(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    take(tmp_path, claim())
    path = tmp_path / "claim.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RequestError, match=message):
        read_claim(tmp_path)


def test_a_newer_claim_is_left_to_the_newer_version(tmp_path: Path) -> None:
    (tmp_path / "claim.json").write_text('{"schema_version": 2}')
    with pytest.raises(NewerVersion):
        read_claim(tmp_path)


# --- starts ------------------------------------------------------------------------------------
def test_only_what_an_earlier_start_left_is_its_own(tmp_path: Path) -> None:
    """However often Slurm has requeued the job."""
    take(tmp_path, claim(continues=True))
    assert not has_begun(tmp_path, SECOND, holds_checkpoints=True)
    begin(tmp_path, claim(restart=1, job_id="7"))
    assert has_begun(tmp_path, SECOND, holds_checkpoints=True)
    held = read_claim(tmp_path)
    assert held is not None
    assert (held.restart, held.job_id, held.continues) == (1, "7", True)
    with pytest.raises(Superseded, match=r"start 1 of this job, on \S+, writes to") as error:
        has_begun(tmp_path, FIRST, holds_checkpoints=True)
    assert error.value.failure_class is FailureClass.INFRA


def test_a_claim_that_is_gone_is_made_anew_where_nothing_lies(tmp_path: Path) -> None:
    with pytest.raises(ActionError, match=r"claim\.json, which tells whose they are, is gone"):
        has_begun(tmp_path, SECOND, holds_checkpoints=True)
    assert not has_begun(tmp_path, SECOND, holds_checkpoints=False)
    begin(tmp_path, claim(restart=1))
    with pytest.raises(ActionError, match=r"belongs to run a \(stage train\) of"):
        has_begun(tmp_path, Start("b:train"), holds_checkpoints=False)


def test_who_is_no_longer_the_latest_writes_no_line(tmp_path: Path) -> None:
    take(tmp_path, claim(restart=0))
    first = StatusLog(tmp_path / "status.json", FIRST)
    first.write(Status.STARTED)
    begin(tmp_path, claim(restart=1))
    with pytest.raises(Superseded):
        first.write(Status.RUNNING)
    StatusLog(tmp_path / "status.json", SECOND).write(Status.STARTED)
    other = tmp_path / "status.json"
    with pytest.raises(Superseded, match="belongs to run a"):
        StatusLog(other, Start("b:train", 5)).fail(FailureClass.UNKNOWN, "x")
    lines = read_status(other)
    assert [(line["claim"], line["restart"]) for line in lines] == [("a:train", 0), ("a:train", 1)]
    assert [SECOND.wrote(line) for line in lines] == [False, True]
    check_latest(tmp_path / "no claim", FIRST)


def test_lines_of_others_do_not_count(tmp_path: Path) -> None:
    """Also TAO's, which have no timestamp, whenever they were written."""
    path = tmp_path / "status.json"
    tao = '{"status": "RUNNING", "epoch": 71, "max_epoch": 71}\n'
    path.write_text(tao)
    StatusLog(path, Start("b:train")).write(Status.SUCCESS)
    StatusLog(path, FIRST).write(Status.STARTED)
    with path.open("a") as stream:
        stream.write(tao)
    assert [line["status"] for line in status_lines_of(path, "a:train")] == ["STARTED"]


def test_the_engine_is_told_by_its_environment() -> None:
    assert start_of(SECOND.environment()) == SECOND
    assert start_of({}) is None


# --- whether it still stands -------------------------------------------------------------------
def in_use(folder: Path, held: Claim | None) -> str:
    return why_in_use(folder, held, report_of_record) or ""


def by_hand(**facts: Any) -> Claim:
    own = process_facts(str(os.getpid()))
    held = new_claim("h", restart=0, pid=os.getpid(), process_start=own["process_start"])
    return replace(held, **facts)


def test_a_start_by_hand_stands_as_long_as_its_process_lives(tmp_path: Path) -> None:
    assert f"in use by process {os.getpid()} on {os.uname().nodename}" in in_use(
        tmp_path, by_hand()
    )
    assert in_use(tmp_path, by_hand(process_start=1)) == ""
    assert in_use(tmp_path, by_hand(ended=True)) == ""
    elsewhere = in_use(tmp_path, by_hand(host="elsewhere"))
    assert "cannot be looked for from here. Choose another results_dir; if it" in elsewhere
    assert f"remove {tmp_path}/claim.json" in elsewhere
    start = Start("h")
    take(tmp_path, by_hand())
    mark_ended(tmp_path, start)
    assert in_use(tmp_path, read_claim(tmp_path)) == ""


def test_a_process_that_proc_does_not_show_is_not_taken_for_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/proc mounted with hidepid shows each user only their own."""

    def hidden(_path: Path) -> str:
        raise PermissionError

    def anothers(_pid: int, _signum: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", anothers)
    gone = by_hand(pid=2**22 + 1)
    assert "cannot be looked for from here" in in_use(tmp_path, gone)
    held = by_hand()
    monkeypatch.setattr(Path, "read_text", hidden)
    assert "cannot be looked for from here" in in_use(tmp_path, held)


END = {"stage": "train", "job_id": "7", "state": "failed", "failure_class": "oom_gpu"}


@pytest.mark.parametrize(
    ("event", "facts", "free"),
    [
        ("submitted", {"stage": "train", "job_id": "7"}, False),
        ("started", {"stage": "train", "job_id": "7"}, False),
        ("finished", END, True),
        ("refused", {"stage": "train", "reason": "no such partition"}, True),
        ("withdrawn", {"stage": "train", "reason": "the next stage was refused"}, True),
    ],
)
def test_a_runs_claim_stands_until_its_record_has_an_end(
    tmp_path: Path, event: str, facts: dict[str, Any], free: bool
) -> None:
    run = make_run(tmp_path, STAGE)
    task = StageTask(run.plan.stages[0])
    held = claim_results(run, task)
    run.record(event, **facts)
    told = in_use(task.results_dir, held)
    assert (told == "") == free
    if not free:
        assert f"in use by run {run.id} (stage train) of {held.user}" in told
        assert "which is unknown as job 7" in told
        assert f"rtdetr-slurm cancel {run.path}" in told


def test_a_run_that_was_removed_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    assert in_use(folder, claim(run_dir=str(tmp_path / "train-1"))) == ""
    # Only out of sight, as in a container.
    assert "is in use by run train-1" in in_use(folder, claim(run_dir="/elsewhere/train-1"))
    (tmp_path / "train-2").mkdir()
    damaged = in_use(folder, claim(run_dir=str(tmp_path / "train-2")))
    assert "is not a run folder" in damaged
    assert f"if it has ended, remove {folder}/claim.json" in damaged
