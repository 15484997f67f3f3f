"""The run that a submission continues, and the trial of one: found, and held to what it has."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, local_stage, make_run, write_checkpoint, write_dataset
from search_support import choose, searching_run

from rtdetr_slurm.contract import Status
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.plan.model import Input, Origin, StageTask
from rtdetr_slurm.runs.inference import infer
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.runs.trials import trial_folder
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.submission.prepare import Prepared, prepare


class Machine:
    """This machine with data and a spec, and a run that has trained on them."""

    def __init__(self, root: Path) -> None:
        self.spec = write_dataset(root / "data")
        source = f"{{image_dir: {root}/data/images, json_file: {root}/data/coco.json}}"
        self.test = f"dataset.test_data_sources={source}"
        resolved = load_spec(self.spec, ["model.num_queries=50", "model.num_select=50"]).resolved()
        self.stage = local_stage(root / "trained")
        self.run = make_run(root / "runs", self.stage, spec=resolved)

    def ask(self, *overrides: str, action: str = "evaluate", **more: Any) -> Prepared:
        return prepare(
            self.spec, [self.test, *overrides], action=action, site="local", **more
        )  # fmt: skip

    def end(self, run: Run | None = None, state: str = "success") -> None:
        """Two epochs, the first the better, and the end of the training."""
        run = run or self.run
        [task] = run.plan.tasks()
        claim_results(run, task)
        train(task.results_dir)
        failed = {} if state == "success" else {"failure_class": "config", "reason": "no good"}
        run.record("submitted", stage="train", job_id="1")
        run.record("finished", stage="train", job_id="1", restart=0, state=state, **failed)


def train(folder: Path) -> None:
    status = StatusLog(folder / "status.json")
    claim = folder / "claim.json"
    start = {"claim": json.loads(claim.read_text())["id"]} if claim.exists() else {}
    for epoch, metric in enumerate((0.5, 0.3)):
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": metric}, **start)
    status.write(Status.SUCCESS, "done", **start)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path)


def test_a_finished_parent_must_have_what_is_asked_for(machine: Machine) -> None:
    machine.end()
    made = machine.ask(parent=machine.run.id)
    [evaluate] = made.plan.stages
    origin = Origin("train", str(machine.run.path))
    assert Input("evaluate.checkpoint", "parent_model", origin) in evaluate.inputs
    assert evaluate.depends_on == ()
    assert made.spec["model"]["num_queries"] == 50
    chosen = machine.ask(parent=machine.run.id, checkpoint="epoch:1").plan.stages[0].inputs
    assert Input("evaluate.checkpoint", "parent_model", origin, choice="epoch:1") in chosen
    with pytest.raises(RequestError, match=r"^job\.parent: evaluate\.checkpoint: there is no check"
                       r"point of epoch 3 in .*; there are those of epochs 0, 1$"):  # fmt: skip
        machine.ask(parent=machine.run.id, checkpoint="epoch:3")
    for file in Path(machine.stage.results_dir).glob("*.pth"):
        file.unlink()
    with pytest.raises(RequestError, match="there is no whole checkpoint in"):
        machine.ask(parent=machine.run.id)


def test_the_flag_wins_over_every_entry(machine: Machine) -> None:
    then = "job.then=[{action: evaluate, checkpoint: epoch:0}]"
    made = machine.ask(then, action="train", checkpoint="last")
    assert [one.choice for one in made.plan.stages[1].inputs] == [None, "last"]
    with pytest.raises(RequestError, match=r"job\.checkpoint: found 'newest'; allowed: best, las"):
        machine.ask(then, action="train", checkpoint="newest")


def test_training_that_goes_on_must_have_epochs_left(machine: Machine) -> None:
    machine.end()
    for overrides, epochs in (["train.num_epochs=2"], 2), (["job.checkpoint=epoch:0"], 1):
        with pytest.raises(RequestError, match=rf"train\.num_epochs: found {epochs}; run .* has "
                           rf"{epochs} of them behind it; allowed: > {epochs}"):  # fmt: skip
            machine.ask(*overrides, action="train", parent=machine.run.id)
    [made] = machine.ask("train.num_epochs=3", action="train", parent=machine.run.id).plan.stages
    [resumed] = [one for one in made.inputs if one.function == "resume_model"]
    value = infer(machine.run, made.tasks()[0], resumed)
    assert (value.path.name, value.about) == ("model_epoch_001.pth", "epoch 1, val_mAP 0.3000")


def test_a_parent_that_failed_is_none(machine: Machine) -> None:
    machine.end(state="failed")
    with pytest.raises(RequestError, match=r"job\.parent: train of train-2026.* is failed; only a"):
        machine.ask(parent=machine.run.id)


def test_classes_that_mean_something_else_now_are_noted(machine: Machine, tmp_path: Path) -> None:
    machine.end()
    record = json.loads((machine.run.path / "run.json").read_text())
    (machine.run.path / "run.json").write_text(json.dumps({**record, "classes": {"1": "owl"}}))
    made = machine.ask(parent=machine.run.id)
    assert made.classes == {1: "owl"}
    assert made.plan.notes[-1] == (
        "class 1 was 'owl' in training and is 'thing' in the data of evaluate; if these are "
        "different things, its results mean nothing"
    )
    moved = {**record, "classes": {"0": "thing"}}
    (machine.run.path / "run.json").write_text(json.dumps(moved))
    with pytest.raises(RequestError, match="'thing' is 1 there, and 0 of the weights"):
        machine.ask(parent=machine.run.id)
    again = machine.ask("train.num_epochs=3", "job.then=[evaluate]", action="train")
    assert again.classes == {1: "thing"}
    assert not any("mean nothing" in note for note in again.plan.notes)


# --- searches ------------------------------------------------------------------------------
@pytest.fixture
def search(machine: Machine) -> Run:
    """A run whose trial 3 has ended, and whose trial 4 has not; the numbers of queries differ."""
    run = searching_run(machine.run.path.parent, "train-20260102-030405-beef", machine.run.spec)
    for number, queries in ((3, 60), (4, 70)):
        folder = StageTask(run.plan.stages[0], trial=number).results_dir
        folder.mkdir(parents=True)
        overrides = [f"model.num_queries={queries}", "model.num_select=50"]
        resolved = load_spec(machine.spec, overrides).resolved()
        (folder / "experiment.yaml").write_text(json.dumps(resolved))
    train(trial_folder(run, 3))
    return run


def test_a_trial_is_continued_with_its_own_model(machine: Machine, search: Run) -> None:
    made = machine.ask(parent=f"{search.id}/trials/3/")
    [evaluate] = made.plan.stages
    [model] = [one for one in evaluate.inputs if one.function == "parent_model"]
    assert model.origin == Origin("train", str(search.path), trial=3)
    assert model.source == f"parent_model of trial 3 of {search.id}"
    assert replace(model, choice="last").source.startswith("parent_model (last) of trial 3")
    assert made.spec["model"]["num_queries"] == 60
    found = infer(machine.run, evaluate.tasks()[0], model)
    assert found.path == trial_folder(search, 3) / "model_epoch_000.pth"
    assert evaluate.depends_on == ()
    for reference, said in {
        f"{search.id}/trials/9": "has no trial 9; it has 3, 4",
        f"{search.path}/trials/4": r"trial 4 of train-2026.* has not succeeded \(nothing is",
        f"{machine.run.id}/trials/0": "has searched nothing, and so has no trials",
        "train-1999/trials/0": "there is no run 'train-1999'",
    }.items():
        with pytest.raises(RequestError, match=f"job.parent: .*{said}"):
            machine.ask(parent=reference)


def test_a_search_is_continued_with_the_model_of_its_best_trial(
    machine: Machine, search: Run
) -> None:
    pid = str(os.getpid())
    for stage in search.plan.stages:
        search.record("submitted", stage=stage.name, job_id=pid, **process_facts(pid))
    with pytest.raises(RequestError, match=r"still searches model\.num_queries, which carries"):
        machine.ask(parent=search.id)
    choose(search, 3, 0, **{"model.num_queries": 60, "train.optim.lr": 0.01})
    for task in search.plan.tasks():
        end = task.event_facts(None)
        search.record("finished", **end, state="success")
    made = machine.ask(parent=search.id)
    [evaluate] = made.plan.stages
    [model] = [one for one in evaluate.inputs if one.function == "parent_model"]
    assert model.origin == Origin("best", str(search.path))
    assert (evaluate.depends_on, made.spec["model"]["num_queries"]) == ((), 60)
    found = infer(machine.run, evaluate.tasks()[0], model)
    assert found.path == trial_folder(search, 3) / "model_epoch_000.pth"
    with pytest.raises(InvalidInput, match=r"found 55; train-.* has 60"):
        machine.ask("model.num_queries=55", parent=search.id)
