"""What the stage that finds the best trial of a search leaves."""

from __future__ import annotations

import csv
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from search_support import lay_out_trial, searching_run
from stage_run_support import ShellAllocation

from rtdetr_slurm.automl.finalize import BEST_LINK, BEST_SPEC_YAML, LEADERBOARD_CSV, BestRun
from rtdetr_slurm.automl.study import Study, create_study
from rtdetr_slurm.contract import ExitCode
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.best import read_best
from rtdetr_slurm.runs.checkpoints import list_checkpoints
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.trials import searching_stage
from rtdetr_slurm.yaml_source import load_yaml

CURVES = {0: {0: 0.1, 1: 0.3, 2: 0.2}, 1: {0: 0.4, 1: 0.5, 2: 0.45}, 2: {0: 0.05}}
"""Of three trials, the last of which is stopped after its first epoch."""


@pytest.fixture(autouse=True)
def own_handlers() -> Iterator[None]:
    """A stop request replaces the signal handlers of its process."""
    handlers = {s: signal.getsignal(s) for s in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def searched(
    root: Path, curves: Mapping[int, Mapping[int, float]] = CURVES, **changes: Any
) -> tuple[Run, Study]:
    """A run whose trials have been trained like this; trial 2 is pruned."""
    run = searching_run(root, **changes)
    study = create_study(searching_stage(run)[1])
    for number, curve in curves.items():
        assert study.take() is not None
        lay_out_trial(run, number, curve)
        for epoch, value in curve.items():
            study.report(number, epoch, {"val_mAP": value, "parameters": 100.0 - number})
        end = study.prune if number == 2 else study.complete
        end(number, {"seconds": 60.0, "gpu_hours": 0.5})
    return run, study


def find_best(run: Run) -> int:
    allocation = ShellAllocation("exit 1")
    allocation.task = StageTask(run.plan.stage("best"))
    return BestRun(run, allocation, StopRequest({})).execute()


def checkpoints(run: Run) -> dict[int, list[int]]:
    """Trial to the epochs of its checkpoints."""
    stage = run.plan.stage("train")
    folders = {number: StageTask(stage, trial=number).results_dir for number in CURVES}
    return {n: [one.epoch for one in list_checkpoints(f)] for n, f in folders.items()}


def rows(run: Run) -> list[dict[str, str]]:
    text = (searching_stage(run)[1].path / LEADERBOARD_CSV).read_text()
    return list(csv.DictReader(text.splitlines()))


def test_the_best_trial_is_found_and_told(tmp_path: Path) -> None:
    run, study = searched(tmp_path)
    _, search = searching_stage(run)
    assert find_best(run) == ExitCode.OK
    best = read_best(search)
    assert best is not None
    assert (best.trial, best.epoch, best.checkpoint, best.value) == (
        *(1, 1, "model_epoch_001.pth", 0.5),
    )
    assert best.values == study.trials()[1].values
    assert (search.path / BEST_LINK).resolve() == search.trials_folder / "1"
    # `status` shows the file, the score and the report.
    found = report_run(run, {}, run.events()).stages[2]
    assert found.state.value == "success"
    assert found.results.best == search.trials_folder / "1" / "train" / best.checkpoint
    assert found.results.report == search.path / "report.html"
    assert found.progress.metrics == {"val_mAP": 0.5}
    # The others' checkpoints are gone, the best trial's are not.
    assert checkpoints(run) == {0: [], 1: [0, 1, 2], 2: []}
    assert [(row["rank"], row["trial"], row["state"], row["val_mAP"]) for row in rows(run)] == [
        ("1", "1", "complete", "0.5"),
        ("2", "0", "complete", "0.3"),
        ("3", "2", "pruned", "0.05"),
    ]
    assert float(rows(run)[0]["train.optim.lr"]) == best.values["train.optim.lr"]
    spec = load_yaml(search.path / BEST_SPEC_YAML).data
    assert spec["automl"] == {"policy": "off"}
    assert spec["train"]["optim"]["lr"] == best.values["train.optim.lr"]


def test_what_is_left_while_the_search_may_go_on(tmp_path: Path) -> None:
    run, _ = searched(tmp_path, trials=4)
    claim = searching_stage(run)[1].trials_folder / "0" / "train" / "claim.json"
    assert find_best(run) == ExitCode.OK
    assert checkpoints(run) == {0: [0, 1, 2], 1: [0, 1, 2], 2: [0]}
    # Once it is over they go, but for what another run has taken over.
    run.record("extended", search="train", deadline="2020-01-01T00:00:00+00:00")
    claim.write_text(claim.read_text().replace(f"{run.id}:", "train-20260102-030405-beef:"))
    assert find_best(run) == ExitCode.OK
    assert checkpoints(run) == {0: [0, 1, 2], 1: [0, 1, 2], 2: []}


def test_all_is_left_where_that_is_asked_for(tmp_path: Path) -> None:
    run, _ = searched(tmp_path, retention="all")
    assert find_best(run) == ExitCode.OK
    assert checkpoints(run) == {0: [0, 1, 2], 1: [0, 1, 2], 2: [0]}


def test_a_search_that_came_to_nothing(tmp_path: Path) -> None:
    run = searching_run(tmp_path)
    _, search = searching_stage(run)
    study = create_study(search)
    for number in range(2):
        assert study.take() is not None
        study.fail(number, "config", "num_classes is <3>", {})
    assert find_best(run) == ExitCode.FAILED
    assert read_best(search) is None
    found = report_run(run, {}, run.events()).stages[2]
    assert found.failure is not None
    assert (found.failure.failure_class.value, found.failure.evidence) == (
        "config",
        "none of the 2 trials that were begun has ended with a score; 2 failed, 2 of them with "
        "config: num_classes is <3>",
    )
    assert [row["failure"] for row in rows(run)] == ["config", "config"]
    assert b"num_classes is &lt;3&gt;" in (search.path / "report.html").read_bytes()
