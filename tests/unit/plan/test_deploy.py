"""Deploying on several kinds of GPU, and without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import Parent, ParentStage
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Dependency, Origin, Plan, Resources
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec

SOURCES = """\
dataset:
  train_data_sources: [{image_dir: /data/train, json_file: /data/train.json}]
  test_data_sources: {image_dir: /data/test, json_file: /data/test.json}
  infer_data_sources: {image_dir: [/data/new]}
"""
THEN = "job.then=[evaluate, export, gen_trt_engine, trt_evaluate, trt_inference]"
L4 = {"name": "l4", "constraint": "l4", "compute_capability": "8.9"}
H100 = {"name": "h100", "partition": "big", "gpu": {"request": "gres", "type": "h100"}}
TWO = {"targets": [L4, H100], "partition": "small", "constraint": "any", "image": "/trt.sif"}
ENGINES = "/runs/gen_trt_engine-20260101-000000-aaaa"


def plan(
    folder: Path,
    *overrides: str,
    action: str = "train",
    accelerator: str = "cuda",
    tensorrt: dict[str, Any] | None = None,
    parent: Parent | None = None,
    **site: Any,
) -> Plan:
    path = folder / "spec.yaml"
    path.write_text(SOURCES)
    values = {"name": "here", "accelerator": accelerator, "image": "/t.sif", "partition": "gpu"}
    at = Site.model_validate(values | {"roles": {"tensorrt": tensorrt or {}}} | site)
    loaded = load_spec(path, overrides, action)
    spec = frozen_spec(loaded, run_dir=Path("/runs/1"), cwd=folder)
    return make_plan(loaded, spec, at, run_dir=Path("/runs/1"), parent=parent)


def test_each_target_has_its_own_stages_and_engine(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in plan(tmp_path, THEN, tensorrt=TWO).stages}
    after = {name: [str(one.on) for one in stage.depends_on] for name, stage in stages.items()}
    assert after == {
        "train": [],
        "evaluate": ["train"],
        "export": ["train"],
        "gen_trt_engine.l4": ["export"],
        "gen_trt_engine.h100": ["export"],
        "trt_evaluate.l4": ["gen_trt_engine.l4"],
        "trt_evaluate.h100": ["gen_trt_engine.h100"],
        "trt_inference.l4": ["gen_trt_engine.l4"],
        "trt_inference.h100": ["gen_trt_engine.h100"],
    }

    def gpu(resources: Resources) -> tuple[str | None, ...]:
        return (
            resources.partition,
            resources.constraint,
            resources.gpu_request,
            resources.gpu_type,
        )

    for name, stage in stages.items():
        if stage.target is None:
            assert gpu(stage.resources) == ("gpu", None, "gpus-per-node", None)
            continue
        assert name.endswith(f".{stage.target}")
        assert stage.results_dir == f"/runs/1/results/{name}"
        l4 = ("small", "l4", "gpus-per-node", None)
        assert gpu(stage.resources) == (
            l4 if stage.target == "l4" else ("big", "any", "gres", "h100")
        )
        # Where the job has a GPU, it builds for that one.
        assert not any("--compute-capability" in word for word in stage.command)


def test_one_of_the_targets_may_be_chosen(tmp_path: Path) -> None:
    stages = plan(tmp_path, THEN, "job.targets=[h100]", tensorrt=TWO).stages
    assert [stage.target for stage in stages] == [None, None, None, "h100", "h100", "h100"]
    with pytest.raises(RequestError, match=r"targets: found 'l5'; .* of site 'here' has: l4, h100"):
        plan(tmp_path, THEN, "job.targets=[l5]", tensorrt=TWO)
    with pytest.raises(RequestError, match="has: none"):
        plan(tmp_path, THEN, "job.targets=[l4]")


@pytest.mark.parametrize(
    ("action", "field"),
    [("gen_trt_engine", "gen_trt_engine"), ("trt_evaluate", "evaluate")],
)
def test_one_file_is_no_engine_of_several_targets(tmp_path: Path, action: str, field: str) -> None:
    given = (f"{field}.trt_engine=/models/e.engine", "gen_trt_engine.onnx_file=/models/m.onnx")
    said = rf"{field}\.trt_engine: found /models/e\.engine, one engine for l4, h100 .* job\.targets"
    with pytest.raises(RequestError, match=said):
        plan(tmp_path, *given, action=action, tensorrt=TWO)
    [stage] = plan(tmp_path, *given, "job.targets=[l4]", action=action, tensorrt=TWO).stages
    assert stage.name == f"{action}.l4"


def test_a_parent_gives_each_target_its_own_engine(tmp_path: Path) -> None:
    origins = {name: Origin(f"gen_trt_engine.{name}", ENGINES) for name in ("l4", "t4")}
    stages = [
        ParentStage(origin, "engine", ended=False, target=name) for name, origin in origins.items()
    ]
    named = (f"job.parent={ENGINES}", "job.targets=[l4]")
    made = plan(
        tmp_path, *named, action="trt_evaluate", tensorrt=TWO, parent=Parent("run R", stages, {})
    )
    assert made.stages[0].depends_on == (Dependency(origins["l4"]),)
    with pytest.raises(
        RequestError, match=r"no stage that leaves a TensorRT engine for h100.*those for l4, t4"
    ):
        plan(
            tmp_path,
            named[0],
            action="trt_evaluate",
            tensorrt=TWO,
            parent=Parent("run R", stages, {}),
        )


def test_limits_name_the_entry_of_all_targets(tmp_path: Path) -> None:
    limits = {"max_time": 60}
    with pytest.raises(SiteError) as error:
        plan(
            tmp_path,
            "job.then=[export, {action: gen_trt_engine, time: 120}, {action: evaluate, time: 90}]",
            tensorrt=TWO,
            limits=limits,
            time=30,
        )
    said = str(error.value)
    assert said.count("job.then[1].time: found 02:00:00") == 2
    assert "job.then[2].time: found 01:30:00" in said


def test_without_a_gpu_a_capability_and_another_runtime_are_needed(tmp_path: Path) -> None:
    def made(*overrides: str, **tensorrt: Any) -> list[tuple[str, ...]]:
        stages = plan(
            tmp_path, THEN, *overrides, accelerator="cpu", tensorrt=tensorrt or None
        ).stages
        return [stage.command[4:] for stage in stages[3:]]

    with pytest.raises(RequestError, match=r"job\.compute_capability: missing; gen_trt_engine"):
        made()
    for given in ("job.runtime=tensorrt_rtx", "job.max_map_drop=1"):
        with pytest.raises(RequestError, match=r"job\.runtime: .* allowed: onnxruntime, which"):
            made("job.compute_capability='8.9'", given)
    with pytest.raises(RequestError, match=r"found 'tensorrt', which builds on a GPU alone"):
        made("job.compute_capability='8.9'", "job.runtime=tensorrt")
    assert made("job.compute_capability=8.6", "job.runtime=onnxruntime") == [
        ("--compute-capability=8.6",),
        ("--runtime=onnxruntime",),
        ("--runtime=onnxruntime",),
    ]
    targets = [L4, {"name": "t4", "compute_capability": "7.5"}]
    built = made("job.runtime=onnxruntime", targets=targets)[:2]
    assert built == [("--compute-capability=8.9",), ("--compute-capability=7.5",)]
    with pytest.raises(RequestError, match=r"found 8\.6, one for every target"):
        made("job.runtime=onnxruntime", "job.compute_capability='8.6'", targets=targets)
    # An ONNX file says itself what runs it.
    stages = plan(
        tmp_path, "evaluate.trt_engine=/models/m.onnx", action="trt_evaluate", accelerator="cpu"
    ).stages
    assert stages[0].command[4:] == ()


def test_what_the_job_asks_goes_to_the_program(tmp_path: Path) -> None:
    asked = ("job.runtime=tensorrt", "job.max_map_drop=0.4")
    stages = plan(tmp_path, THEN, *asked).stages
    assert stages[3].command == (
        *("rtdetr-deploy", "gen_trt_engine", "-e", "spec.yaml"),
        *("--runtime=tensorrt", "--max-map-drop=0.4"),
    )
    assert stages[4].command == (
        *("rtdetr-deploy", "trt_evaluate", "-e", "spec.yaml"),
        *("--runtime=tensorrt", "--max-map-drop=0.4"),
    )
