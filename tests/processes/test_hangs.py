"""Ranks that make no steps any more: who is named, and what for."""

from __future__ import annotations

import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_ranks import start_fake
from hang_support import RANK, WAITS

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.engine.process import hangs
from rtdetr_slurm.engine.process.failures import RankFailure
from rtdetr_slurm.engine.process.hangs import HangWatch, hang_minutes, remove_reports
from rtdetr_slurm.engine.process.heartbeats import beat_with
from rtdetr_slurm.engine.process.phases import Phase, Phases
from rtdetr_slurm.engine.process.ranks import RanksEnd
from rtdetr_slurm.engine.process.standing import Standing
from rtdetr_slurm.engine.process.start import tell_end
from rtdetr_slurm.engine.process.status_end import StatusEnd
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.claim import Start
from rtdetr_slurm.runs.failures import classify


def watch_of(folder: Path, minutes: float = 1, **change: Any) -> HangWatch:
    arguments: dict[str, Any] = {
        "ranks": 2,
        "nodes": 2,
        "node_rank": 0,
        "start": 0,
        "folder": folder,
    }
    return HangWatch(minutes, environ={"RTDETR_NODE": "node1"}, **(arguments | change))


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, seconds: float, watch: HangWatch) -> None:
        """Time in which somebody looks, as the launching process does all the time."""
        for _ in range(int(seconds)):
            self.now += 1
            watch.hangs([0])


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("hangs", "heartbeats"):
        monkeypatch.setattr(f"rtdetr_slurm.engine.process.{module}.time", clock)
    return clock


def test_steps_and_phases_are_signs_of_life(tmp_path: Path, clock: Clock) -> None:
    watch, phases = watch_of(tmp_path, nodes=1), Phases(clock.monotonic)
    beat_with(phases, watch.variables(1), 1)
    clock.run(239, watch)  # loading may take four times as long
    assert not watch.hangs([0, 1])
    with phases.during(Phase.STEPPING, epoch=2, step=7):
        clock.run(59, watch)
        assert not watch.hangs([1])
        phases.stepped()
        beat = watch.beats.read(1)
        assert (beat.phase, beat.epoch, beat.step, beat.steps_done) == (Phase.STEPPING, 2, 8, 1)
        clock.run(61, watch)
        assert watch.hangs([1])
        assert not watch.hangs([])
        with phases.during(Phase.SAVING):
            clock.run(239, watch)
            assert not watch.hangs([1]), "a long checkpoint"
            clock.run(2, watch)
            assert watch.hangs([1]), "but not for ever"
    assert watch.hangs([0])
    watch.close()


def test_a_validation_is_impatient_until_its_last_batch(tmp_path: Path, clock: Clock) -> None:
    watch, phases = watch_of(tmp_path, nodes=1), Phases(clock.monotonic)
    beat_with(phases, watch.variables(0), 0)
    with phases.during(Phase.VALIDATING, steps=1):
        clock.run(59, watch)
        assert not watch.hangs([0])
        clock.run(2, watch)
        assert watch.hangs([0])
        phases.stepped()
        clock.run(239, watch)
        assert not watch.hangs([0]), "it is scoring"
    watch.close()


def test_nobody_looks_where_nobody_is_to(tmp_path: Path, clock: Clock) -> None:
    watch = watch_of(tmp_path, minutes=0)
    clock.now += 1e6
    assert not watch.hangs([0, 1])
    watch.close()


def test_a_node_that_is_patient_believes_another_one(tmp_path: Path, clock: Clock) -> None:
    mine, other, stale = (
        watch_of(tmp_path, node_rank=rank, start=start) for rank, start in ((0, 4), (1, 4), (1, 3))
    )
    stale._write([RANK], {})
    clock.run(61, mine)
    assert not mine.hangs([0]), "it is loading; what an earlier start has left says nothing"
    other._write([replace(RANK, state="T")], {})
    clock.run(4, mine)
    clock.now += 2
    assert mine.hangs([0])
    [failure] = mine.explain({})
    assert (failure.rank, failure.node_rank) == (2, 1)
    assert failure.reason.startswith("rank 2 on node2 stands in loop.py:131")
    remove_reports(tmp_path)
    assert not mine._reports()
    for watch in (mine, other, stale):
        watch.close()


def test_a_suspended_job_has_not_hung(tmp_path: Path, clock: Clock) -> None:
    """`scontrol suspend`: whoever watches stood still as well."""
    watch, phases = watch_of(tmp_path, nodes=1), Phases(clock.monotonic)
    beat_with(phases, watch.variables(0), 0)
    phases.enter(Phase.STEPPING)
    clock.now += 3600
    clock.run(60, watch)
    assert not watch.hangs([0])
    clock.run(2, watch)
    assert watch.hangs([0])
    watch.close()


def test_a_folder_that_does_not_answer_holds_no_watch(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, over = watch_of(tmp_path), threading.Event()
    asked: list[int] = []

    def hold() -> list[Standing]:
        asked.append(1)
        over.wait(20)
        return []

    monkeypatch.setattr(hangs, "_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(watch, "_reports", hold)
    clock.run(240, watch)
    assert not watch.hangs([0])
    clock.run(1, watch)
    assert watch.hangs([0])
    assert len(asked) == 1
    over.set()
    watch.close()


def test_who_speaks_where_not_all_nodes_answer(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Node 0 may see late what is there: until then no other node ends, for that would end it."""
    first, second, third = (watch_of(tmp_path, nodes=3, node_rank=rank) for rank in range(3))
    monkeypatch.setattr(second, "_ask", lambda _: [(RANK, "its stack")])
    third._write([replace(RANK, rank=4, node_rank=2)], {})
    began = clock.now
    [failure] = second.explain({})
    assert clock.now - began >= hangs._OTHERS_SECONDS + hangs._LEAVE_SECONDS
    assert failure.node_rank == 0
    assert failure.reason.startswith("node 0 does not answer, and rank 2 on node2 stands in")
    told = classify(exit_code=1, log_tail=[f"rtdetr: error: {failure}"])
    assert told.failure_class is FailureClass.INFRA
    assert third.explain({}) == [], "the second has spoken"
    first._write([WAITS], {})
    began = clock.now
    assert second.explain({}) == []
    assert clock.now - began >= hangs._OTHERS_SECONDS
    for watch in (first, second, third):
        watch.close()


def test_a_hang_is_told_also_where_the_folder_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log has it, and the launch finds it there."""
    over = threading.Event()
    monkeypatch.setattr(hangs, "_WRITE_SECONDS", 0.05)
    monkeypatch.setattr(StatusEnd, "is_over", lambda _: over.wait(20))
    failure = RankFailure(2, FailureClass.INFRA, str(RANK))
    tell_end(StatusEnd(tmp_path, "0", Start("r:train")), RanksEnd(1, [failure], hung=True))
    over.set()
    [line] = capsys.readouterr().err.splitlines()
    assert classify(exit_code=1, log_tail=[line]).failure_class is FailureClass.INFRA


RANKS = """
import os, signal, subprocess, time
from rtdetr_slurm.engine.process.heartbeats import beat_with
from rtdetr_slurm.engine.process.phases import Phase, Phases
from rtdetr_slurm.engine.process.stacks import dump_apart, dump_on_signal
def work():
    while True:
        if phases.steps_done > 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGSTOP)
        if phases.steps_done > 2: time.sleep(60)
        phases.stepped()
dump_on_signal(os.environ)
phases = Phases()
beat_with(phases, os.environ, int(os.environ["RANK"]))
phases.enter(Phase.STEPPING, epoch=0, steps=100)
def load():
    time.sleep(60)
if os.environ["RANK"] == "0":
    from rtdetr_slurm.lifetime import end_with, ends_with_me
    subprocess.Popen(["sleep", "60"], preexec_fn=ends_with_me())
    me = os.getpid()
    if os.fork() == 0:  # the server, which is not asked
        end_with(me)
        server = os.getpid()
        if os.fork() == 0:
            end_with(server), dump_apart(os.environ), load()
        time.sleep(60)
work()
"""


def test_a_stopped_rank_is_named_with_its_line(tmp_path: Path) -> None:
    """Two real processes: one is stopped, the other waits for it, and has a loading process."""
    script = tmp_path / "rank.py"
    script.write_text(RANKS)
    fake = start_fake(f"exec {sys.executable} {script}", "2", "30", "2", str(tmp_path))
    output, _ = fake.communicate(timeout=30)
    assert fake.returncode == 1
    last = output.splitlines()[-1]
    assert f"rank 1 on node7 stands in {script}:9 (work), stopped by a signal" in last
    assert "while stepping (epoch 1, step 3)" in last
    kept = sorted((tmp_path / hangs.STACKS_DIR).iterdir())
    assert [path.name for path in kept] == ["start-3-rank-000.txt", "start-3-rank-001.txt"]
    rank, *loading = re.split(r"^loading process \d+ \(S\):\n", kept[0].read_text(), flags=re.M)
    assert f'File "{script}", line 10 in work' in rank
    assert [f'File "{script}", line 17 in load' in text for text in loading] == [True]


def test_the_limit_is_the_launchs_else_the_specs() -> None:
    assert hang_minutes({}, 25) == 25
    assert hang_minutes({"RTDETR_HANG_MINUTES": "0.5"}, 25) == 0.5
    for wrong in ("many", "-1", "inf", "nan"):
        with pytest.raises(SiteError, match="RTDETR_HANG_MINUTES"):
            hang_minutes({"RTDETR_HANG_MINUTES": wrong}, 25)
