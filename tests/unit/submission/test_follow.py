"""Following a run: Ctrl-C only detaches, and a Slurm that does not answer is no end."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.cli.watching import watch
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.submission.follow import Follower
from rtdetr_slurm.submission.survey import survey_run


@pytest.fixture
def running(slurm: FakeSlurm, run: Run) -> Run:
    """A run whose training runs, and has written a line to its log."""
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    run.log_path("train", "42").write_text("epoch 1\n")
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    return run


@pytest.fixture
def ctrl_c(running: Run, slurm: FakeSlurm) -> Iterator[None]:
    """Ctrl-C once the run is being followed."""

    def press() -> None:
        while not slurm.calls("squeue"):
            time.sleep(0.02)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    # A shell starts what it runs in the background with this signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=press, daemon=True)
    thread.start()
    yield
    thread.join()
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_only_detaches(
    slurm: FakeSlurm, running: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert watch(running, show_log=True, as_json=False) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 1" in err
    assert f"detached; the run goes on: rtdetr-slurm status {running.path}" in err
    assert slurm.calls("scancel") == []


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_reading_of_a_log(
    slurm: FakeSlurm, running: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["logs", str(running.path), "--follow"]) == 130
    out, err = capsys.readouterr()
    assert out == "epoch 1\n"
    assert "Traceback" not in err
    assert slurm.calls("scancel") == []


def test_the_log_of_the_job_that_resume_has_sent_is_passed_on_too(running: Run) -> None:
    lines: list[str] = []
    follower = Follower(
        running, on_line=lines.append, on_report=lambda _: None, on_note=lambda _: None
    )
    follower.follow(timeout_s=0)
    running.record("submitting", stage="train", restart=1)
    running.record("submitted", stage="train", restart=1, job_id="43")
    running.log_path("train", "43").write_text("epoch 2\n")
    follower.follow(timeout_s=0)
    assert lines == ["epoch 1", "epoch 2"]


@pytest.mark.parametrize("program", ["squeue", "sacct", "scontrol"])
def test_a_command_that_hangs_is_given_up(
    slurm: FakeSlurm, running: Run, program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.3)
    state = {"squeue": "RUNNING", "sacct": "", "scontrol": "FAILED"}[program]
    line = queue_line(running, "42", state)
    slurm.answer("squeue", f"echo '{line}'" if state else "true")
    slurm.answer(program, "sleep 30")
    report, notes = survey_run(running.path)
    expected = {"squeue": "unknown", "sacct": "unknown", "scontrol": "failed"}[program]
    assert report.state.value == expected
    assert any("squeue gave no answer in 0 s" in note for note in notes) == (program == "squeue")
