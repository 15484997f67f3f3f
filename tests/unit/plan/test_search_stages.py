"""The stages of a plan whose training is a search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import Parent, ParentStage, Searching
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Array, Dependency, Input, Origin, Plan
from rtdetr_slurm.plan.search import Objective, Parameter, Search
from rtdetr_slurm.records import checked
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec

SPEC = """\
dataset:
  train_data_sources: [{image_dir: /d/train, json_file: /d/train.json}]
  val_data_sources: {image_dir: /d/val, json_file: /d/val.json}
  test_data_sources: {image_dir: /d/val, json_file: /d/val.json}
train: {num_nodes: 2, num_gpus: 4}
evaluate: {results_dir: /other}
"""
RUN_DIR = Path("/runs/train-1")
FOLDER = "/runs/train-1/results/automl"
LR = Parameter("train.optim.lr", "float", 1e-4, low=1e-5, high=1e-3, log=True)
SEARCH = Search(FOLDER, "asha", 1, (LR,), (Objective("val_mAP", "maximize"),), trials=9, epochs=10)
SITE = Site.model_validate(
    {
        "accelerator": "cuda",
        "image": "/images/train.sif",
        "partition": "gpu",
        "roles": {"cpu": {"partition": "cpu", "container": "none"}},
    }
)
SEARCHING = Searching(SEARCH, Array(3, throttle=2))


def plan(
    folder: Path,
    *overrides: str,
    searching: Searching = SEARCHING,
    parent: Parent | None = None,
    site: Site = SITE,
) -> Plan:
    path = folder / "train.yaml"
    path.write_text(SPEC)
    loaded = load_spec(path, overrides, "train")
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=folder)
    return make_plan(loaded, spec, site, run_dir=RUN_DIR, parent=parent, searching=searching)


def test_workers_then_the_best_and_what_follows_on_it(tmp_path: Path) -> None:
    made = plan(tmp_path, "job.then=[export, evaluate]")
    names = [stage.name for stage in made.stages]
    assert names == ["train", "best", "evaluate_best", "export", "evaluate"]
    train, best, scored, export, evaluate = made.stages
    assert (train.search, train.array) == (SEARCH, Array(3, throttle=2))
    assert train.results_dir == f"{FOLDER}/workers"
    assert (train.resources.nodes, train.resources.gpus_per_node) == (2, 4)
    assert train.tasks()[0].results_dir == Path(FOLDER, "workers", "0")
    assert best.depends_on == (Dependency(Origin("train"), "afterany"),)
    assert (best.results_dir, best.command) == (FOLDER, ())
    assert (best.best_of, best.container, best.resources.gpu_ids) == ("train", None, ())
    assert (best.resources.partition, best.resources.gpu_request) == ("cpu", "none")
    after = (Dependency(Origin("best")),)
    assert scored.depends_on == export.depends_on == evaluate.depends_on == after
    assert Input("evaluate.checkpoint", Infer.PARENT_MODEL, Origin("best")) in scored.inputs
    assert (scored.results_dir, evaluate.results_dir) == (
        "/runs/train-1/results/evaluate_best",
        "/other",
    )
    assert checked(Plan, json.loads(json.dumps(made.to_json())), "run.json") == made


def test_what_every_trial_starts_from_is_scored_as_it_is(tmp_path: Path) -> None:
    searching = replace(SEARCHING, has_baseline=True)
    made = plan(tmp_path, "train.pretrained_model_path=/w/a b.pth", searching=searching)
    baseline = made.stage("baseline")
    assert baseline.depends_on == ()
    scored = Input("evaluate.checkpoint", Infer.FETCH, uri="file:///w/a%20b.pth")
    assert scored in baseline.inputs
    before = Origin("train", "/runs/before")
    parent = Parent("before", [ParentStage(before, "checkpoint", ended=False)], {})
    made = plan(
        tmp_path, "job.parent=before", "job.checkpoint=epoch:3", searching=searching, parent=parent
    )
    baseline = made.stage("baseline")
    assert baseline.depends_on == (Dependency(before),)
    scored = Input("evaluate.checkpoint", Infer.PARENT_MODEL, before, choice="epoch:3")
    assert scored in baseline.inputs


def test_without_data_nothing_is_scored(tmp_path: Path) -> None:
    made = plan(tmp_path, searching=replace(SEARCHING, evaluates=False))
    assert [stage.name for stage in made.stages] == ["train", "best"]


def test_names_of_a_search_are_taken(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="two stages called 'best'"):
        plan(tmp_path, "job.then=[{action: export, name: best}]")


def test_limits_name_the_entry_that_a_stage_comes_from(tmp_path: Path) -> None:
    site = SITE.model_copy(update={"limits": SITE.limits.model_copy(update={"max_time": 30})})
    with pytest.raises(SiteError) as error:
        plan(tmp_path, "job.then=[export]", "job.time=90", site=site)
    message = str(error.value)
    assert message.count("job.time: found 01:30:00") == 2  # the workers, and the best's evaluation
    assert "job.then[0].time: none given" in message
