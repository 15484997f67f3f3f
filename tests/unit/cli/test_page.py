"""What `status` shows of a run: in the table, and on its page."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from rtdetr_slurm.cli.page import page_facts, run_table, shown_time
from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.live import Live, StartTimes
from rtdetr_slurm.runs.progress import Progress
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport, StageReport
from rtdetr_slurm.runs.usage import Usage
from rtdetr_slurm.slurm.answers import JobInfo

SECONDS = dict.fromkeys(("container", "imports", "data", "model", "validating", "saving"), 1.0)
USAGE = Usage(2, 90.0, 3600.0, 4, SECONDS | {"stepping": 1800.0}, 600.0, 0.5)
PROGRESS = Progress(epoch=1, max_epoch=9, eta="0:08:00", metrics={"val_mAP": 0.25})
TRAIN = StageReport(
    "train",
    "train",
    StageState.RUNNING,
    job_id="7",
    job=JobInfo("7", "RUNNING", nodes="node[1-2]"),
    restarts=1,
    progress=PROGRESS,
    usage=USAGE,
    results_dir="/r",
)
EVALUATE = StageReport(
    "evaluate",
    "evaluate",
    StageState.QUEUED,
    detail="Dependency",
    job_id="8",
    job=JobInfo("8", "PENDING", "Dependency", expected_start="2026-01-02T03:04:05"),
)


def live(seconds_ago: float = 0.0) -> Live:
    then = datetime.now(timezone.utc) - timedelta(seconds=seconds_ago)
    start = StartTimes(1, then.isoformat(), SECONDS)
    return Live("r:train", "cuda", "stepping", start, 2, 10, 7, 50, 3.2144, 41.26, 444.4, best=0.3)


def report(*stages: StageReport) -> RunReport:
    return RunReport("train-1", "/runs/train-1", "n\x1b[2J", "train", "now", "me", stages)


def page(*stages: StageReport) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in page_facts(report(*stages)):
        found.setdefault(name, []).append(value)
    return found


def test_a_page_has_the_chain_and_every_stage() -> None:
    shown = page(replace(TRAIN, live=live()), EVALUATE)
    assert shown["stages"] == ["train running → evaluate queued"]
    assert shown["stage"] == ["train", "evaluate"]
    assert shown["state"] == ["running", "running", "queued (Dependency)"]
    assert shown["job"] == ["7, RUNNING says squeue", "8, PENDING says squeue"]
    assert shown["start"] == ["expected 2026-01-02T03:04:05"]
    assert shown["restarts"] == ["1"]
    assert shown["epoch"] == ["3/10, ETA 0:07:24"]
    [now] = shown["now"]
    assert now == "stepping, step 7/50, loss 3.214, 41.3 images/s, best val_mAP 0.3000"
    assert shown["queued"] == ["0:01:30"]
    assert shown["GPU hours"] == ["4.00 (4 GPUs for 1:00:00)"]
    assert shown["in steps"] == ["50% of that time, waiting for data 0:10:00"]
    assert "advice" not in shown, "it is for the end"


def test_what_rank_0_last_said_has_an_age() -> None:
    [now] = page(replace(TRAIN, live=live(130)))["now"]
    assert now.endswith(", as of 0:02:10 ago")


def test_the_page_of_a_failure_says_what_to_do() -> None:
    failure = Failure(FailureClass.OOM_GPU, "CUDA out of memory")
    shown = page(replace(TRAIN, state=StageState.FAILED, failure=failure))
    assert shown["failure"] == ["oom_gpu"]
    assert shown["evidence"] == ["CUDA out of memory"]
    assert shown["what to do"][0].startswith("the GPU's memory was too small")
    assert shown["advice"][0].startswith("the GPUs waited for data for 17% of the time")


def test_a_run_on_cpus_has_no_gpu_hours() -> None:
    shown = page(replace(TRAIN, usage=replace(USAGE, gpus=0)))
    assert "GPU hours" not in shown
    assert shown["allocated"] == ["1:00:00, on CPUs"]


def test_the_table_has_a_row_for_each_run() -> None:
    failed = replace(TRAIN, state=StageState.FAILED, failure=Failure(FailureClass.INFRA, "x" * 99))
    runs = {"a": report(replace(TRAIN, live=live()), EVALUATE), "b": report(failed), "c": None}
    lines = run_table(runs).plain.splitlines()
    assert [" ".join(line.split()) for line in lines[:2]] == [
        "RUN NAME STATE STAGE JOB EPOCH ETA METRIC GPU-H STEPS REASON",
        "a n\\x1b[2J running train 7 3/10 0:07:24 val_mAP 0.2500 4.0 50%",
    ]
    assert lines[2].endswith("4.0    50%    infra: " + "x" * 52 + "…")
    assert lines[3].split() == ["c", "unreadable"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.6, "0:01:00"), (7322, "2:02:02"), (180000, "2-02:00:00")],
)
def test_times_are_clocks(seconds: float, text: str) -> None:
    assert shown_time(seconds) == text


def test_the_tasks_of_an_array_take_a_line_each() -> None:
    tasks = [
        replace(TRAIN, name="train.0", detail="trial 7", live=live(), progress=Progress()),
        replace(TRAIN, name="train.1", state=StageState.SUCCESS, progress=Progress()),
        replace(
            TRAIN,
            name="train.2",
            state=StageState.FAILED,
            failure=Failure(FailureClass.INFRA, "the node went down"),
        ),
    ]
    found = page(*tasks, EVALUATE)
    assert found["stages"] == ["train 1 running, 1 success, 1 failed → evaluate queued"]
    [running] = found["train.0"]
    assert running.startswith("running, job 7, node[1-2], trial 7, epoch 3/10, stepping, step 7/50")
    assert found["train.1"] == ["success, job 7, node[1-2]"]
    # One that failed is told of as a stage is.
    assert found["stage"] == ["train.2", "evaluate"]
    assert found["evidence"] == ["the node went down"]
