"""The Python API, on this machine: a chain for real, and a run that continues it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import local_stage, make_run
from local_support import EVALUATED, VALIDATED, write_workspace

import rtdetr_slurm
from rtdetr_slurm import open_run, submit
from rtdetr_slurm.api import SubmittedRun
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.runs.state import StageState

ONCE = ["train.num_epochs=1", VALIDATED, EVALUATED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A current folder with data and a spec, on the local site."""
    folder = tmp_path_factory.mktemp("api")
    write_workspace(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("RTDETR_SLURM_SITE", "local")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield folder


@pytest.fixture(scope="module")
def chain(folder: Path) -> SubmittedRun:
    """A training and its evaluation, to their end."""
    run = submit("train.yaml", [*ONCE, "train.seed=3"], name="api", then=["evaluate"])
    assert run.wait(timeout=120).state is StageState.SUCCESS
    return run


def test_a_chain_ends_well_and_leaves_what_it_promises(chain: SubmittedRun) -> None:
    report = chain.status()
    assert [(stage.name, stage.state.value) for stage in report.stages] == [
        ("train", "success"),
        ("evaluate", "success"),
    ]
    train, evaluate = report.stages
    assert report.name == "api"
    assert evaluate.progress.metrics["test_mAP"] == pytest.approx(
        train.progress.metrics["val_mAP"], abs=1e-6
    )
    results = chain.results()
    assert results["train"].best == chain.path / "results" / "train" / "model_epoch_000.pth"
    assert results["evaluate"].picture == chain.path / "results" / "evaluate" / "annotated.jpg"
    assert results["evaluate"].report == chain.path / "results" / "evaluate" / "report.html"
    [resolved] = [
        e for e in chain.record.events() if e["event"] == "resolved" and e["stage"] == "evaluate"
    ]
    assert {one["field"]: one["source"] for one in resolved["inputs"]} == {
        "evaluate.results_dir": "output_dir",
        "evaluate.checkpoint": "parent_model of train",
    }
    assert json.loads((chain.path / "summary.json").read_text())["state"] == "success"


def test_a_finished_run_is_continued_by_another(chain: SubmittedRun) -> None:
    again = submit("train.yaml", ONCE, action="evaluate", parent=chain.id)
    [scores] = again.wait(timeout=120).stages
    assert scores.state is StageState.SUCCESS
    assert scores.progress.metrics["test_mAP"] == pytest.approx(
        chain.status().stages[1].progress.metrics["test_mAP"]
    )
    assert again.record.manifest.parent == chain.id


def test_runs_are_opened_by_id_beginning_or_path(chain: SubmittedRun) -> None:
    assert open_run(chain.id).path == chain.path
    assert open_run(chain.path).id == chain.id
    assert open_run("train-", site="local").id == chain.id
    with pytest.raises(RequestError, match="there is no run 'export-1'"):
        open_run("export-1")


def test_what_is_wrong_is_raised_and_nothing_is_made(chain: SubmittedRun, folder: Path) -> None:
    before = set((folder / "runs").iterdir())
    with pytest.raises(RequestError, match="found 'trian'; allowed: train"):
        submit("train.yaml", ONCE, then=["trian"])
    with pytest.raises(RequestError, match="there is no run 'train-1999'"):
        submit("train.yaml", ONCE, action="evaluate", parent="train-1999")
    assert set((folder / "runs").iterdir()) == before


def test_a_run_that_left_no_checkpoint_is_no_parent(folder: Path) -> None:
    scores = replace(local_stage(folder / "scores"), name="evaluate", action="evaluate")
    parent = make_run(folder, scores)
    with pytest.raises(RequestError, match="has no stage that leaves a checkpoint"):
        submit("train.yaml", ONCE, action="evaluate", parent=str(parent.path))


def test_what_the_system_refuses_is_an_error_for_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for call in (lambda: submit("/none.yaml", site="local"), lambda: open_run("x", site="local")):
        with pytest.raises(UserError):
            call()
    monkeypatch.chdir(tmp_path)


def test_waiting_has_an_end(tmp_path: Path) -> None:
    run = open_run(make_run(tmp_path, local_stage(tmp_path / "results")).path)
    with pytest.raises(TimeoutError, match=r"is unknown after 0\.1 s"):
        run.wait(timeout=0.1)
    assert run.cancel() == {}, "no job of it is known"


def test_the_package_is_cheap_until_it_is_used() -> None:
    code = "import sys, rtdetr_slurm; assert 'rtdetr_slurm.api' not in sys.modules; "
    code += "rtdetr_slurm.submit; assert 'rtdetr_slurm.api' in sys.modules; "
    code += "assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        rtdetr_slurm.nonsense  # noqa: B018
