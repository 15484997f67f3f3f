"""Keeping a picture up to date: one question at a time, and what was known stays known."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.cli import status, watching
from rtdetr_slurm.cli.main import main
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.live import Live, StartTimes, write_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.submission import watch
from rtdetr_slurm.submission.survey import Survey
from rtdetr_slurm.submission.watch import Pace, Picture, Watcher, remembering

A = Path("/runs/a")
TRAIN = StageReport("train", "train", StageState.RUNNING, job=JobInfo("7", "RUNNING"))


def report(**changes: object) -> RunReport:
    stage = replace(TRAIN, **changes)  # type: ignore[arg-type]
    return RunReport("a", str(A), None, "train", "now", "me", (stage,))


def surveyed(silence: str | None = None, **changes: object) -> Survey:
    return Survey({A: report(**changes)}, {}, (), silence)


def looked(watcher: Watcher, until: Callable[[Picture, bool], bool]) -> Picture:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        picture, asked = watcher.look()
        if picture is not None and until(picture, asked):
            return picture
        time.sleep(0.005)
    raise AssertionError("it has never come to that")


def test_slurm_is_asked_ever_more_seldom_and_never_at_one_beat() -> None:
    pace = Pace()
    pauses = [pace.pause(silent=False) for _ in range(8)]
    assert 4 <= pauses[0] <= 6
    assert 24 <= pauses[-1] <= 36
    assert len({*pauses[-3:]}) == 3
    assert pace.pause(silent=True) > 20
    assert pace.pause(silent=True) + pace.pause(silent=True) > 90
    assert pace.pause(silent=True) <= 144
    assert pace.pause(silent=False) <= 36, "it answers again"


def test_an_answer_that_takes_its_time_holds_up_nothing() -> None:
    answer = threading.Event()
    asked: list[Sequence[Path]] = []

    def survey(folders: Sequence[Path]) -> Survey:
        asked.append(folders)
        answer.wait(10)
        return surveyed()

    watcher = Watcher(lambda: [A], survey=survey)
    for _ in range(50):
        assert watcher.look() == (None, False)
    answer.set()
    looked(watcher, lambda _, heard: heard)
    assert asked == [[A]]
    watcher.hurry()
    looked(watcher, lambda _, heard: heard)
    assert asked == [[A], [A]]


def test_what_a_survey_meets_is_not_lost() -> None:
    def survey(_folders: Sequence[Path]) -> Survey:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        looked(Watcher(lambda: [A], survey=survey), lambda *_: True)


def test_while_slurm_is_silent_the_last_picture_stays() -> None:
    unknown = {"state": StageState.UNKNOWN, "job": None, "detail": "nobody says"}
    answers = [surveyed(), surveyed("it is down", **unknown), surveyed(detail="back")]
    watcher = Watcher(lambda: [A], survey=lambda _: answers.pop(0))
    assert looked(watcher, lambda _, heard: heard).silence is None
    watcher.hurry()
    picture = looked(watcher, lambda _, heard: heard)
    [stage] = picture.reports[A].stages
    assert (stage.state, stage.job) == (StageState.RUNNING, TRAIN.job)
    assert picture.silence is not None
    assert picture.silence.startswith("Slurm has not answered since ")
    watcher.hurry()
    assert looked(watcher, lambda _, heard: heard).silence is None


@pytest.mark.parametrize(
    ("states", "silence", "over"),
    [
        ([], None, True),
        (["success", "failed", "cancelled"], None, True),
        (["success", "queued"], None, False),
        (["running"], None, False),
        (["success", "unknown"], None, True),
        (["success", "unknown"], "it is down", False),
    ],
)
def test_watching_is_over_when_there_is_nothing_to_wait_for(
    states: list[str], silence: str | None, over: bool
) -> None:
    reports = {Path(f"/runs/{n}"): report(state=StageState(s)) for n, s in enumerate(states)}
    assert Picture(reports, {}, silence=silence).over is over


def test_the_runs_own_word_wins_over_what_slurm_last_said() -> None:
    for state in (StageState.FAILED, StageState.SUCCESS, StageState.QUEUED):
        assert remembering(report(state=state), report()).stages[0].state is state
    talks = remembering(report(job=None, detail="so its own record says"), report())
    assert (talks.stages[0].job, talks.stages[0].detail) == (TRAIN.job, "")
    ended = report(state=StageState.FAILED)
    assert remembering(report(state=StageState.UNKNOWN), ended).stages[0].state.value == "unknown"


def test_between_two_questions_the_ranks_are_listened_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_REFRESH_S", 0.0)
    asked: list[int] = []

    def survey(_folders: Sequence[Path]) -> Survey:
        asked.append(1)
        return surveyed(results_dir=str(tmp_path))

    watcher = Watcher(lambda: [A], survey=survey)
    looked(watcher, lambda _, heard: heard)
    start = StartTimes(0, "2026-01-02T03:04:05+00:00", {})
    for step in (1, 2):
        write_live(
            tmp_path, Live(claim_id("a", "train"), "cpu", "stepping", start, step=step, steps=9)
        )

        def told(picture: Picture, _asked: bool, step: int = step) -> bool:
            live = picture.reports[A].stages[0].live
            return live is not None and live.step == step

        looked(watcher, told)
    assert asked == [1]


def test_status_watch_prints_a_line_for_each_change(
    slurm: FakeSlurm, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One squeue for each look at Slurm, and the end of the last run ends it."""
    monkeypatch.setattr(Pace, "pause", lambda _self, *, silent: 0.01)
    monkeypatch.setattr(watching, "_EVERY_S", 0.01)
    submitted(run)
    lines = [queue_line(run, "42"), queue_line(run, "42", "RUNNING")]
    answers = [f"echo '{lines[0]}'", "exit 1", f"echo '{lines[1]}'"]
    cases = "".join(f"{n}) {answer};; " for n, answer in enumerate(answers, 1))
    end = f"cp {run.path}/end {run.path}/events/end.jsonl; echo '{lines[1]}'"
    (run.path / "end").write_text(
        '{"schema_version": 1, "timestamp": "2026-01-02T03:04:05+00:00", "event": "finished",'
        ' "stage": "train", "job_id": "42", "restart": 0, "state": "success"}\n'
    )
    slurm.answer("squeue", f"case $(wc -l < {slurm.calls_of('squeue')}) in {cases} *) {end};; esac")
    assert main(["status", str(run.path), "--watch"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"{run.id} train: queued, job 42",
        f"{run.id} train: running, job 42",
        f"{run.id} train: success, job 42",
    ]
    assert err.count("Slurm has not answered since") == 1
    assert err.count("Slurm answers again") == 1
    with pytest.raises(SystemExit, match="2"):
        main(["status", "--watch", "--json"])


def test_a_run_that_cannot_be_read_is_told_while_watching(
    slurm: FakeSlurm, run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_EVERY_S", 0.01)
    (run.path / "run.json").write_text("{")
    reason = f"{run.path}/run.json: this is not JSON"
    assert main(["status", "--watch", str(run.path)]) == 2
    assert reason in capsys.readouterr().err
    monkeypatch.setattr(status, "run_root", lambda _site: run.path.parent)
    assert main(["status", "--watch"]) == 0
    assert reason in capsys.readouterr().err
    monkeypatch.setattr(status, "run_root", lambda _site: run.path)
    assert main(["status", "--watch"]) == 0
    assert capsys.readouterr().err == f"no runs in {run.path}\n"
