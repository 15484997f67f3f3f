"""What is printed while a run is waited for, and at its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rtdetr_slurm.cli.watching import StateLines, print_end
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.runs.artefacts import Results
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.progress import Progress
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport

Capture = pytest.CaptureFixture[str]
PROGRESS = Progress(epoch=1, max_epoch=9, eta="0:08:00", metrics={"val_mAP": 0.25})
TRAIN = StageReport("train", "train", StageState.RUNNING, job_id="7", progress=PROGRESS)
EVALUATE = StageReport("evaluate", "evaluate", StageState.QUEUED, job_id="8")


def report(*stages: StageReport) -> RunReport:
    return RunReport("train-1", "/runs/train-1", None, "train", "now", "me", stages)


def further(stage: StageReport, epoch: int) -> StageReport:
    return replace(stage, progress=replace(stage.progress, epoch=epoch))


def test_every_change_is_one_line(capsys: Capture) -> None:
    lines = StateLines(progress=True)
    for epoch in (1, 1, 2):
        lines.report(report(further(TRAIN, epoch), EVALUATE))
    assert capsys.readouterr().err.splitlines() == [
        "train: running, job 7, epoch 2/10, ETA 0:08:00, val_mAP 0.2500",
        "evaluate: queued, job 8",
        "train: running, job 7, epoch 3/10, ETA 0:08:00, val_mAP 0.2500",
    ]


def test_beside_a_log_only_the_state_is_told(capsys: Capture) -> None:
    lines = StateLines(progress=False)
    for epoch in (1, 2, 3):
        lines.report(report(further(TRAIN, epoch)))
    lines.report(report(replace(TRAIN, state=StageState.SUCCESS)))
    assert capsys.readouterr().err.splitlines() == [
        "train: running, job 7",
        "train: success, job 7",
    ]


def test_the_end_of_a_chain_is_told_stage_by_stage(capsys: Capture) -> None:
    results = Results(best=Path("/r/a.pth"), best_metric=0.5, last=Path("/r/b.pth"))
    failure = Failure(FailureClass.OOM_GPU, "CUDA out of memory")
    print_end(
        report(
            replace(TRAIN, state=StageState.SUCCESS, results=results),
            replace(EVALUATE, state=StageState.FAILED, failure=failure, log="/r/log"),
        )
    )
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "train: success",
        "val_mAP      0.2500",
        "best         /r/a.pth (val_mAP 0.5000)",
        "last         /r/b.pth",
        "evaluate: failed",
    ]
    assert "evaluate failed (oom_gpu):\n  CUDA out of memory\n" in err
    assert "what to do: the GPU's memory was too small" in err
    assert "log: /r/log" in err
