"""Spec + site → plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import STAGE

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.binds import needed_binds
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Array, Bind, Dependency, Input, Origin, Plan, Stage
from rtdetr_slurm.plan.render import render_plan
from rtdetr_slurm.records import checked
from rtdetr_slurm.site.discover import local_site
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec

SPEC = """\
dataset:
  train_data_sources:
    - {image_dir: coco/train, json_file: coco/train.json}
    - {image_dir: /other/images, json_file: /other/a.json}
  val_data_sources: {image_dir: coco/val, json_file: coco/val.json}
train:
  pretrained_model_path: ~/weights.pth
  num_gpus: 2
  gpu_ids: [0, 1]
"""
RUN_DIR = Path("/runs/train-1")
CWD = Path("/home/someone")


def site(**values: Any) -> Site:
    defaults: dict[str, Any] = {
        "name": "here",
        "accelerator": "cuda",
        "image": "/images/train.sif",
        "partition": "gpu",
    }
    return Site.model_validate(defaults | values)


def plan(folder: Path, at: Site, *overrides: str) -> Plan:
    path = folder / "train.yaml"
    path.write_text(SPEC)
    loaded = load_spec(path, overrides)
    return make_plan(loaded, frozen_spec(loaded, run_dir=RUN_DIR, cwd=CWD), at, run_dir=RUN_DIR)


def stage(folder: Path, at: Site, *overrides: str) -> Stage:
    [only] = plan(folder, at, *overrides).stages
    return only


def test_the_action_gives_nodes_and_gpus(tmp_path: Path) -> None:
    resources = stage(tmp_path, site(), "train.num_nodes=3").resources
    assert resources.nodes == 3
    assert resources.gpus_per_node == 2
    assert resources.partition == "gpu"
    assert resources.time_min is None


def test_the_spec_wins_over_the_site(tmp_path: Path) -> None:
    at = site(account="a", qos="q", time="1:00:00", mem_gb=10, cpus_per_gpu=4)
    resources = stage(tmp_path, at).resources
    assert (resources.account, resources.qos, resources.time_min) == ("a", "q", 60)
    assert (resources.mem_gb, resources.cpus_per_task) == (10, 8)
    overrides = ["job.account=b", "job.qos=r", "job.time=2:00:00", "job.mem_gb=20"]
    resources = stage(tmp_path, at, *overrides, "job.cpus_per_task=3", "job.partition=x").resources
    assert (resources.account, resources.qos, resources.time_min) == ("b", "r", 120)
    assert (resources.mem_gb, resources.cpus_per_task, resources.partition) == (20, 3, "x")


def test_on_slurm_gpu_ids_count_within_the_allocation(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"found \[2, 3\].*2 GPUs are \[0, 1\]"):
        stage(tmp_path, site(), "train.gpu_ids=[2,3]")


def test_on_this_machine_gpu_ids_are_devices_and_there_is_one_node(tmp_path: Path) -> None:
    assert stage(tmp_path, local_site(), "train.gpu_ids=[2,3]").resources.gpu_ids == (2, 3)
    with pytest.raises(RequestError, match=r"train.num_nodes: found 2.*must be 1"):
        stage(tmp_path, local_site(), "train.num_nodes=2")


def test_all_limits_that_are_exceeded_are_named(tmp_path: Path) -> None:
    limits = {"max_nodes": 1, "max_gpus_per_node": 1, "max_time": 30, "partitions": ["a", "b"]}
    with pytest.raises(SiteError) as error:
        stage(tmp_path, site(limits=limits, time=60), "train.num_nodes=2")
    message = str(error.value)
    assert "num_nodes: found 2; at most 1" in message
    assert "num_gpus: found 2; at most 1 per node" in message
    assert "job.time: found 01:00:00; at most 00:30:00" in message
    assert "job.partition: found gpu; allowed: a, b" in message


def test_each_of_several_partitions_must_be_allowed(tmp_path: Path) -> None:
    limits = {"partitions": ["a", "b"]}
    assert stage(tmp_path, site(limits=limits, partition="b,a")).resources.partition == "b,a"
    with pytest.raises(SiteError, match=r"job\.partition: found a,gpu; allowed: a, b"):
        stage(tmp_path, site(limits=limits, partition="a,gpu"))


def test_a_time_limit_of_the_site_needs_a_time(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match="none given; name one of at most 00:30:00"):
        stage(tmp_path, site(limits={"max_time": 30}))


def test_relative_paths_are_taken_from_the_folder_of_submission(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(SPEC)
    spec = frozen_spec(load_spec(path), run_dir=RUN_DIR, cwd=CWD)
    sources = spec["dataset"]["train_data_sources"]
    assert sources[0]["image_dir"] == "/home/someone/coco/train"
    assert sources[1]["json_file"] == "/other/a.json"
    assert spec["train"]["pretrained_model_path"] == str(Path.home() / "weights.pth")
    assert spec["train"]["resume_training_checkpoint_path"] == ""
    assert spec["results_dir"] == "/runs/train-1/results"


@pytest.mark.parametrize(
    ("override", "results_dir"),
    [
        ([], "/runs/train-1/results/train"),
        (["results_dir=out"], "/home/someone/out/train"),
        (["results_dir=/out", "train.results_dir=t"], "/home/someone/t"),
    ],
)
def test_where_results_go(tmp_path: Path, override: list[str], results_dir: str) -> None:
    assert stage(tmp_path, site(), *override).results_dir == results_dir


def test_data_are_bound_read_only_and_results_are_not(tmp_path: Path) -> None:
    container = stage(tmp_path, site(binds=["/x:/y:ro"]), "results_dir=/out").container
    assert container is not None
    assert set(container.binds) == {
        Bind("/x", "/y", read_only=True),
        Bind("/runs/train-1", "/runs/train-1"),
        Bind("/out/train", "/out/train"),
        *(
            Bind(path, path, read_only=True)
            for path in (
                "/home/someone/coco/train",
                "/home/someone/coco/train.json",
                "/home/someone/coco/val",
                "/home/someone/coco/val.json",
                "/other/images",
                "/other/a.json",
                str(Path.home() / "weights.pth"),
            )
        ),
    }


def test_an_export_on_the_cpu_gets_no_gpu(tmp_path: Path) -> None:
    """And the folder of the file that it names is bound, to write to."""
    path = tmp_path / "export.yaml"
    path.write_text("export: {checkpoint: /c.pth, onnx_file: /models/a.onnx, on_cpu: true}\n")
    for engine, accelerator, request in (("rtdetr", "cpu", "none"), ("tao", "cuda", "gres")):
        loaded = load_spec(path, engine_of=lambda _, engine=engine: engine)  # type: ignore[misc]
        spec = frozen_spec(loaded, run_dir=RUN_DIR, cwd=CWD)
        at = site(engine=engine, gpu={"request": "gres"})
        [made] = make_plan(loaded, spec, at, run_dir=RUN_DIR).stages
        assert (made.launch.accelerator, made.resources.gpu_request) == (accelerator, request)
        assert made.container is not None
        assert Bind("/models", "/models") in made.container.binds


def test_binds_that_an_outer_one_provides_are_left_out() -> None:
    outer = Bind("/data", "/data", read_only=True)
    assert needed_binds([Bind("/data/a/b", "/data/a/b", read_only=True), outer]) == (outer,)
    # A writable folder within a read-only one, and the other way round.
    inner = Bind("/data/out", "/data/out")
    assert needed_binds([inner, outer]) == (outer, inner)
    assert needed_binds([Bind("/data", "/data"), outer]) == (Bind("/data", "/data"),)
    # Another source below the same target is not the same.
    other = Bind("/elsewhere", "/data/a", read_only=True)
    deeper = Bind("/data/a/b", "/data/a/b", read_only=True)
    assert needed_binds([deeper, other, outer]) == (outer, other, deeper)


def test_the_command_and_what_goes_with_it(tmp_path: Path) -> None:
    env = ["A", {"B": "b"}]
    only = stage(tmp_path, site(env=env, network_interface="ib0", signal_lead_s=99))
    assert only.command == ("rtdetr", "train", "-e", "spec.yaml")
    assert only.launch.env == {"A": None, "B": "b"}
    assert only.launch.network_interface == "ib0"
    assert only.launch.signal_lead_s == 99
    skipping = stage(tmp_path, site(), "job.bad_images=skip")
    assert skipping.command[-2:] == ("--bad-images", "skip")


def test_taos_image_gets_its_own_command_and_no_flag_of_ours(tmp_path: Path) -> None:
    tao = site(engine="tao")
    only = stage(tmp_path, tao)
    assert only.launch.engine == "tao"
    assert only.command == ("rtdetr", "train", "-e", "/rtdetr-job/spec.yaml")
    with pytest.raises(RequestError, match="found 'skip', which TAO's image cannot do"):
        stage(tmp_path, tao, "job.bad_images=skip")
    assert ACTIONS["trt_evaluate"].command("tao")[:2] == ("rtdetr", "evaluate")
    assert "NVIDIA TAO's" in render_plan(plan(tmp_path, tao), run_dir=RUN_DIR, site_name="here")


def test_gpus_that_nobody_gives_out_call_for_nodes_of_ones_own(tmp_path: Path) -> None:
    unmanaged = site(gpu={"request": "none"})
    assert "exclusive: true in the site profile" in "\n".join(plan(tmp_path, unmanaged).notes)
    alone = plan(tmp_path, site(gpu={"request": "none"}, exclusive=True))
    assert "exclusive" not in "\n".join(alone.notes)
    assert alone.stages[0].resources.exclusive


def test_requeue_needs_site_and_spec(tmp_path: Path) -> None:
    assert stage(tmp_path, site()).launch.requeue
    assert not stage(tmp_path, site(requeue=False)).launch.requeue
    assert not stage(tmp_path, site(), "job.requeue=false").launch.requeue
    assert not stage(tmp_path, local_site()).launch.requeue


def test_a_site_without_an_image_cannot_train(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"names no image for role 'train'; set image, or roles"):
        stage(tmp_path, site(image=None))


def test_a_role_wins_over_the_site(tmp_path: Path) -> None:
    train = {"partition": "a", "image": "/t.sif", "gpu": {"type": "a100"}, "cpus_per_gpu": 3}
    only = stage(tmp_path, site(account="x", cpus_per_task=9, roles={"train": train}))
    resources = only.resources
    assert (resources.partition, resources.account, resources.gpu_type) == ("a", "x", "a100")
    assert resources.cpus_per_task == 6
    assert only.container is not None
    assert only.container.image.path == "/t.sif"


def test_without_a_container_the_sites_python_runs_the_job(tmp_path: Path) -> None:
    at = site(image=None, container="none", python="/venv/bin/python", accelerator="cuda")
    only = stage(tmp_path, at)
    assert only.container is None
    assert only.launch.scheduler == "slurm"
    assert only.launch.python == "/venv/bin/python"
    assert "python    /venv/bin/python" in render_plan(Plan((only,)), run_dir="/r", site_name="x")
    assert stage(tmp_path, site(python="/venv/bin/python")).launch.python is None


def test_a_run_root_that_sbatch_would_misread_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(SPEC)
    loaded = load_spec(path)
    for run_dir in map(Path, ("/runs/100%/train-1", "/a\nb/train-1", "/back\\slash/train-1")):
        spec = frozen_spec(loaded, run_dir=run_dir, cwd=CWD)
        with pytest.raises(SiteError, match=r"run_root: .* choose another folder"):
            make_plan(loaded, spec, site(), run_dir=run_dir)


def test_a_plan_survives_json() -> None:
    launch = replace(STAGE.launch, env={"A": None, "B": "b"}, python="/venv/bin/python")
    other = replace(
        STAGE,
        name="other",
        launch=launch,
        container=None,
        depends_on=(Dependency(Origin("train")), Dependency(Origin("x", "/r/y"), "aftercorr")),
        array=Array(4, throttle=2),
        inputs=(Input("a.b", "output_dir"), Input("c", "parent_model", Origin("train", "/r/y"))),
    )
    made = Plan((STAGE, other), ("a note",))
    assert checked(Plan, json.loads(json.dumps(made.to_json())), "run.json") == made


def test_a_plan_as_text(tmp_path: Path) -> None:
    at = site(time=90, account="acc", gpu={"type": "a100"}, cpus_per_gpu=2, mem_gb=1.5)
    text = render_plan(plan(tmp_path, at, "train.num_nodes=2"), run_dir="/r", site_name="here")
    assert (
        "resources 2 nodes × 2 GPUs (a100), 4 CPUs per node, 1.5 GiB per node, "
        "time limit 01:30:00, partition gpu, account acc" in text
    )
    assert "image     /images/train.sif" in text
    assert "bind      /other/images (read-only)" in text
    assert "command   rtdetr train -e spec.yaml" in text
    assert "after     nothing: starts at once" in text


@pytest.mark.parametrize(
    ("minutes", "overrides", "named"),
    [
        (None, [], []),
        (None, ["job.time=2"], ["job.time: stage train has 00:02:00, and is asked to stop 120 s"]),
        (None, ["job.time=3"], []),
        (1, [], ["job.time: stage train", "job.then[0].time: stage evaluate"]),
        (1, ["job.time=60"], ["job.then[0].time: stage evaluate has 00:01:00"]),
    ],
)
def test_a_time_limit_within_the_signals_lead_is_said(
    tmp_path: Path, minutes: int | None, overrides: list[str], named: list[str]
) -> None:
    test = "dataset.test_data_sources={image_dir: /i, json_file: /j}"
    chain = [test, "job.then=[evaluate]", *overrides]
    notes = plan(tmp_path, site(time=minutes), *chain).notes
    assert [note[: len(name)] for note, name in zip(notes, named, strict=True)] == named
    for note in notes:
        assert note.endswith("so as soon as it starts; give it more time")
    assert plan(tmp_path, site(scheduler="local", time=1)).notes == ()


def test_hours_that_are_used_up_at_once_are_refused(tmp_path: Path) -> None:
    plan(tmp_path, site(), "job.max_hours=0.04")
    with pytest.raises(RequestError, match=r"job.max_hours: found 0\.03; .* 120 s before"):
        plan(tmp_path, site(), "job.max_hours=0.03")


def test_gpu_hours_count_over_all_stages(tmp_path: Path) -> None:
    at = site(limits={"max_gpu_hours": 6}, time=60)
    assert plan(tmp_path, at, "train.num_nodes=3").stages
    with pytest.raises(SiteError, match=r"8 GPU hours .*2 stages.*; at most 6: lower job.time"):
        plan(tmp_path, at, "train.num_nodes=3", *EVALUATED, "evaluate.num_nodes=1")
    with pytest.raises(SiteError, match=r"job\.time: none given; name one, for at most 6 GPU h"):
        plan(tmp_path, site(limits={"max_gpu_hours": 6}))


def test_a_plan_without_a_partition_is_no_way_around_the_allowed_ones(tmp_path: Path) -> None:
    with pytest.raises(SiteError, match=r"job\.partition: none given; allowed: a, b"):
        plan(tmp_path, site(limits={"partitions": ["a", "b"]}, partition=None))


EVALUATED = (
    "job.then=[evaluate]",
    "dataset.test_data_sources={image_dir: t, json_file: t.json}",
    "evaluate.num_gpus=2",
    "evaluate.gpu_ids=[0,1]",
)
