"""Follow-ups: which stages there are, what each waits for, what fills its open fields."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import Parent, ParentStage
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
ALL = "job.then=[evaluate, export, gen_trt_engine, trt_evaluate, trt_inference]"
INFER = "dataset.infer_data_sources={image_dir: [/data/new]}"


def parent_run(*, ended: bool = True, **problems: str) -> Parent:
    """A run that has trained and nothing else."""
    stage = ParentStage(PARENT, "checkpoint", ended, problems.get("checkpoint"))
    return Parent("run train-20260101-000000-aaaa", [stage], {})


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
    parent = parent_run(ended=ended)
    made = plan(tmp_path, f"job.parent={PARENT.run}", action="evaluate", parent=parent)
    [evaluate] = made.stages
    assert Input("evaluate.checkpoint", "parent_model", PARENT) in evaluate.inputs
    assert evaluate.depends_on == (() if ended else (Dependency(PARENT),))
    text = render_plan(made, run_dir="/r", site_name="here")
    assert "evaluate.checkpoint: parent_model of train of train-20260101-000000-aaaa" in text


def test_a_whole_chain_to_the_engine(tmp_path: Path) -> None:
    """Planned as it will run, whichever of its actions this version has."""
    roles = {
        "train": {"partition": "gpu", "time": 600},
        "tensorrt": {"partition": "t4", "image": "/trt.sif", "gpu": {"type": "t4"}, "time": 60},
    }
    stages = plan(tmp_path, ALL, INFER, at=site(roles=roles)).stages
    by_name = {stage.name: stage for stage in stages}
    after = {name: [str(one.on) for one in stage.depends_on] for name, stage in by_name.items()}
    assert after == {
        "train": [],
        "evaluate": ["train"],
        "export": ["train"],
        "gen_trt_engine": ["export"],
        "trt_evaluate": ["gen_trt_engine"],
        "trt_inference": ["gen_trt_engine"],
    }
    assert {one.kind for stage in stages for one in stage.depends_on} == {"afterok"}
    filled = {
        one.field: (one.function, one.origin and str(one.origin))
        for stage in stages
        for one in stage.inputs
        if one.function != "output_dir"
    }
    assert filled == {
        "evaluate.checkpoint": ("parent_model", "train"),
        "export.checkpoint": ("parent_model", "train"),
        "export.onnx_file": ("create_onnx_file", None),
        "gen_trt_engine.onnx_file": ("parent_model", "export"),
        "gen_trt_engine.trt_engine": ("create_engine_file", None),
        "gen_trt_engine.tensorrt.calibration.cal_cache_file": ("create_cal_cache", None),
        "evaluate.trt_engine": ("parent_model", "gen_trt_engine"),
        "inference.trt_engine": ("parent_model", "gen_trt_engine"),
    }
    for stage in stages:
        assert stage.container is not None
        deployed = stage.name in ("gen_trt_engine", "trt_evaluate", "trt_inference")
        assert stage.resources.partition == ("t4" if deployed else "gpu")
        assert stage.resources.gpu_type == ("t4" if deployed else None)
        assert stage.resources.time_min == (60 if deployed else 600)
        assert stage.container.image.path == ("/trt.sif" if deployed else "/t.sif")
        assert stage.command[:2] == ("rtdetr-deploy" if deployed else "rtdetr", stage.action)
        assert stage.results_dir == f"/runs/train-1/results/{stage.name}"
        assert stage.resources.gpu_ids == (0,)


def test_one_engine_per_kind_of_gpu_and_the_nearest_counts(tmp_path: Path) -> None:
    then = ["export", *(f"{{action: gen_trt_engine, name: gen_trt_engine.{g}, partition: {g}}}, "
                        f"{{action: trt_evaluate, name: score.{g}, partition: {g}}}"
                        for g in ("l4", "t4"))]  # fmt: skip
    stages = {s.name: s for s in plan(tmp_path, f"job.then=[{', '.join(then)}]").stages}
    for gpu in ("l4", "t4"):
        assert stages[f"score.{gpu}"].depends_on == (Dependency(Origin(f"gen_trt_engine.{gpu}")),)
        assert stages[f"gen_trt_engine.{gpu}"].depends_on == (Dependency(Origin("export")),)
        assert stages[f"score.{gpu}"].resources.partition == gpu


def test_a_stage_takes_the_checkpoint_that_was_chosen(tmp_path: Path) -> None:
    entry = "job.then=[evaluate, {action: evaluate, name: first, checkpoint: epoch:0}, export]"
    stages = plan(tmp_path, entry, "job.checkpoint=last").stages
    chosen = [one for stage in stages for one in stage.inputs if one.choice]
    assert [(one.field, one.choice) for one in chosen] == [
        ("evaluate.checkpoint", "last"),
        ("evaluate.checkpoint", "epoch:0"),
        ("export.checkpoint", "last"),
    ]
    assert chosen[1].source == "parent_model (epoch:0) of train"


def test_with_a_parent_the_common_choice_is_about_its_checkpoints(tmp_path: Path) -> None:
    """What the training here will leave has other epochs."""
    then = "job.then=[evaluate, {action: evaluate, name: last, checkpoint: last}]"
    named = [f"job.parent={PARENT.run}", "job.checkpoint=epoch:3"]
    stages = plan(tmp_path, then, *named, parent=parent_run()).stages
    chosen = {stage.name: [one.choice for one in stage.inputs if one.origin] for stage in stages}
    assert chosen == {"train": ["epoch:3"], "evaluate": [None], "last": ["last"]}


def test_training_goes_on_from_its_parent(tmp_path: Path) -> None:
    overrides = [f"job.parent={PARENT.run}", "job.then=[evaluate]"]
    train, evaluate = plan(tmp_path, *overrides, parent=parent_run(ended=False)).stages
    assert Input("train.resume_training_checkpoint_path", "resume_model", PARENT) in train.inputs
    assert train.depends_on == (Dependency(PARENT),)
    assert evaluate.depends_on == (Dependency(Origin("train")),)


def test_a_parent_must_have_what_is_taken_from_it(tmp_path: Path) -> None:
    named = f"job.parent={PARENT.run}"
    with pytest.raises(RequestError, match="aaaa has no stage that leaves an ONNX file, which gen"):
        plan(tmp_path, named, action="gen_trt_engine", parent=parent_run())
    failed = parent_run(checkpoint="it is failed")
    with pytest.raises(RequestError, match=r"^job\.parent: it is failed$"):
        plan(tmp_path, named, action="evaluate", parent=failed)
    given = ["evaluate.checkpoint=/c", named]
    with pytest.raises(RequestError, match="no stage takes anything from run train-2026"):
        plan(tmp_path, *given, action="evaluate", parent=failed)


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
