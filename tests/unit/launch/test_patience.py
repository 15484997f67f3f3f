"""A run folder that cannot be read for a moment."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from launch_support import local_stage, make_run

from rtdetr_slurm.contract import RUN_JSON, FailureClass
from rtdetr_slurm.controller import _opened
from rtdetr_slurm.launch import patience
from rtdetr_slurm.launch.patience import patiently
from rtdetr_slurm.records import BadRecord, read_file
from rtdetr_slurm.runs.run import Run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RTDETR_SLURM_LOCAL_JOB_ID", "77")
    return make_run(tmp_path, local_stage(tmp_path / "results"))


def after(monkeypatch: pytest.MonkeyPatch, tries: int, action: Callable[[], object]) -> list[float]:
    """Do something before the next try after so many; the waits that there were."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == tries:
            action()

    monkeypatch.setattr(patience.time, "sleep", sleep)
    return waits


def test_a_start_waits_for_its_run_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    record = run.path / RUN_JSON
    whole = record.rename(run.path / "whole")
    record.symlink_to(record)  # the system refuses to open it
    with pytest.raises(BadRecord) as caught:
        read_file(record)
    assert isinstance(caught.value.__cause__, OSError)
    waits = after(monkeypatch, 3, lambda: whole.replace(record))
    opened, allocation = patiently(partial(_opened, [str(run.path), "train"]))
    assert (opened.id, allocation.job_id, len(waits)) == (run.id, "77", 3)
    assert capfd.readouterr().err.count("; this is tried again") == 3


def test_it_does_not_wait_for_ever_nor_for_what_is_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = run.path / RUN_JSON
    waits = after(monkeypatch, 0, lambda: None)
    opened = partial(_opened, [str(run.path), "train"])
    record.write_text("{")
    with pytest.raises(BadRecord, match="not JSON"):
        patiently(opened)
    record.unlink()
    record.symlink_to(record)
    with pytest.raises(BadRecord):
        patiently(opened, give_up=lambda: True)
    assert not waits
    monkeypatch.setattr(patience, "_FOR_S", 0.0)
    with pytest.raises(BadRecord):
        patiently(opened)


def test_a_system_that_fails_is_no_fault_of_the_request() -> None:
    """What the next node can perhaps read is tried there."""
    with pytest.raises(BadRecord, match="Input/output error") as caught:
        read_file(Path("/proc/self/mem"))
    assert caught.value.failure_class is FailureClass.INFRA
