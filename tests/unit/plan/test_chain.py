"""Follow-ups: which stages there are, what each waits for, what fills its open fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import Parent
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Dependency, Input, Origin, Plan
from rtdetr_slurm.plan.render import render_plan
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec

SOURCES = """\
dataset:
  train_data_sources: [{image_dir: /data/train, json_file: /data/train.json}]
  test_data_sources: {image_dir: /data/test, json_file: /data/test.json}
"""
RUN_DIR = Path("/runs/train-1")
PARENT = Origin("train", "/runs/train-20260101-000000-aaaa")


def site(**values: Any) -> Site:
    defaults = {"name": "here", "accelerator": "cuda", "image": "/t.sif", "partition": "gpu"}
    return Site.model_validate(defaults | values)


def plan(
    folder: Path,
    *overrides: str,
    action: str = "train",
    at: Site | None = None,
    parent: Parent | None = None,
) -> Plan:
    path = folder / "spec.yaml"
    path.write_text(SOURCES)
    loaded = load_spec(path, overrides, action)
    spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=folder)
    return make_plan(loaded, spec, at or site(), run_dir=RUN_DIR, parent=parent)


def test_a_follow_up_takes_the_best_checkpoint_of_the_training_before_it(tmp_path: Path) -> None:
    train, evaluate = plan(tmp_path, "job.then=[evaluate]").stages
    assert (train.name, evaluate.name) == ("train", "evaluate")
    assert train.depends_on == ()
    assert train.inputs == (Input("train.results_dir", "output_dir"),)
    assert evaluate.depends_on == (Dependency(Origin("train"), "afterok"),)
    assert evaluate.inputs == (
        Input("evaluate.results_dir", "output_dir"),
        Input("evaluate.checkpoint", "parent_model", Origin("train")),
    )
    assert evaluate.results_dir == "/runs/train-1/results/evaluate"
    assert evaluate.command == ("rtdetr", "evaluate", "-e", "spec.yaml")
    assert evaluate.container is not None
    sources = {bind.source for bind in evaluate.container.binds}
    assert sources == {"/runs/train-1", "/data/test", "/data/test.json"}


def test_a_checkpoint_that_the_spec_names_wins_and_the_order_stays(tmp_path: Path) -> None:
    made = plan(tmp_path, "job.then=[evaluate]", "evaluate.checkpoint=/old.pth")
    _, evaluate = made.stages
    assert evaluate.inputs == (Input("evaluate.results_dir", "output_dir"),)
    assert evaluate.depends_on == (Dependency(Origin("train")),)
    assert any("evaluate.checkpoint" in note for note in made.notes)


def test_each_stage_has_its_own_job(tmp_path: Path) -> None:
    entry = "{action: evaluate, name: scores, time: 30, partition: p, mem_gb: 8, cpus_per_task: 2}"
    at = site(time=600, account="site", qos="q")
    _, scores = plan(tmp_path, f"job.then=[{entry}]", "job.account=mine", at=at).stages
    resources = scores.resources
    assert scores.name == "scores"
    assert scores.results_dir == "/runs/train-1/results/scores"
    assert (resources.time_min, resources.partition, resources.mem_gb) == (30, "p", 8)
    assert (resources.cpus_per_task, resources.account, resources.qos) == (2, "mine", "q")


def test_two_stages_may_have_one_action_and_not_one_name(tmp_path: Path) -> None:
    again = "job.then=[evaluate,{action: evaluate, name: evaluate-2}]"
    stages = plan(tmp_path, again).stages
    assert [stage.name for stage in stages] == ["train", "evaluate", "evaluate-2"]
    assert len({stage.results_dir for stage in stages}) == 3
    with pytest.raises(RequestError, match=r"two stages called 'evaluate'.*name: evaluate-2"):
        plan(tmp_path, "job.then=[evaluate,evaluate]")
    with pytest.raises(RequestError, match=r"found the name 'train\.4'"):
        plan(tmp_path, "job.then=[{action: evaluate, name: train.4}]")


def test_two_stages_never_write_to_one_folder(tmp_path: Path) -> None:
    again = "job.then=[evaluate,{action: evaluate, name: evaluate-2}]"
    with pytest.raises(RequestError, match="evaluate and evaluate-2 would both write to /out"):
        plan(tmp_path, again, "evaluate.results_dir=/out")


@pytest.mark.parametrize("ended", [True, False])
def test_a_parent_is_waited_for_unless_it_has_ended(tmp_path: Path, ended: bool) -> None:
    parent = Parent(PARENT, ended=ended)
    made = plan(tmp_path, f"job.parent={PARENT.run}", action="evaluate", parent=parent)
    [evaluate] = made.stages
    assert Input("evaluate.checkpoint", "parent_model", PARENT) in evaluate.inputs
    assert evaluate.depends_on == (() if ended else (Dependency(PARENT),))
    text = render_plan(made, run_dir="/r", site_name="here")
    assert "evaluate.checkpoint: parent_model of train of train-20260101-000000-aaaa" in text


def test_limits_hold_for_every_stage_and_name_its_entry(tmp_path: Path) -> None:
    at = site(limits={"max_time": 60, "partitions": ["gpu"]}, time=30)
    entry = "job.then=[{action: evaluate, time: 120, partition: other}]"
    with pytest.raises(SiteError) as error:
        plan(tmp_path, entry, at=at)
    assert "job.then[0].time: found 02:00:00; at most 01:00:00" in str(error.value)
    assert "job.then[0].partition: found other; allowed: gpu" in str(error.value)


def test_a_file_named_by_its_address_is_looked_up_when_the_stage_starts(tmp_path: Path) -> None:
    [evaluate] = plan(tmp_path, "evaluate.checkpoint=file:///w/a%20b.pth", action="evaluate").stages
    assert Input("evaluate.checkpoint", "fetch", uri="file:///w/a%20b.pth") in evaluate.inputs
    for override in (
        "evaluate.checkpoint=s3://b/x.pth",
        "dataset.test_data_sources.image_dir=s3://b",
    ):
        with pytest.raises(
            RequestError, match=r"s3://b.*cannot be fetched in this version; allowed"
        ):
            plan(tmp_path, "evaluate.checkpoint=/c.pth", override, action="evaluate")
