"""Chains and arrays on the real cluster: Slurm's own dependencies, nothing resident anywhere."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.plan.model import Array, Plan
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.submission.prepare import Prepared, freeze, prepare
from rtdetr_slurm.submission.submit import submit_run

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, held_queue, train_spec, write_spec
from .harness.data import Dataset
from .harness.slurm_conf import FEATURE, GPU_TYPE, TENSORRT, TRAIN

pytestmark = pytest.mark.cluster


def chain_spec(dataset: Dataset, **train: Any) -> dict[str, Any]:
    """A training, and what a follow-up of it needs."""
    spec = train_spec(dataset, **train)
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    return spec


def wait(cli: Cli, run_dir: str, state: str, seconds: float = JOB_LIMIT_S) -> dict[str, Any]:
    """Wait until a run is in `state`; returns its stages by name."""
    deadline = time.monotonic() + seconds
    while True:
        report = cli.report(run_dir)
        if report["state"] == state:
            return {stage["name"]: stage for stage in report["stages"]}
        assert report["state"] in ("queued", "running"), report
        assert time.monotonic() < deadline, report
        time.sleep(1)


def waits_for(cluster: slurm.Slurm, job: str) -> str:
    """The dependency of a job as slurmctld has it."""
    return cluster.command("squeue", "--noheader", f"--jobs={job}", "--format=%E").strip()


def test_train_then_evaluate(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    """A training and two scores of it, each of another checkpoint and with a job of its own."""
    content = chain_spec(dataset, num_epochs=6)
    first = {
        "action": "evaluate",
        "name": "first",
        "checkpoint": "epoch:0",
        "partition": TENSORRT,
        "time": 7,
        "mem_gb": 3,
        "cpus_per_task": 1,
    }
    content["job"] = {"time": 9, "then": ["evaluate", first]}
    spec = write_spec(cli.folder / "train.yaml", content)
    with held_queue(cluster):
        made = cli.json("submit", spec)
        ids = {stage["name"]: stage["job_id"] for stage in made["stages"]}
        for name in ("evaluate", "first"):
            assert waits_for(cluster, ids[name]).startswith(f"afterok:{ids['train']}")
        listed = cluster.command(
            "squeue", "--noheader", f"--jobs={','.join(ids.values())}", "--format=%A %P %l %C %m %b"
        )
        asked = {job: rest for job, *rest in map(str.split, listed.splitlines())}
        gpus = asked[ids["train"]][-1]
        assert asked == {
            ids["train"]: [TRAIN, "9:00", "2", "4G", gpus],
            ids["evaluate"]: [TRAIN, "15:00", "2", "4G", gpus],
            ids["first"]: [TENSORRT, "7:00", "1", "3G", gpus],
        }
    drawn = cli.on_a_terminal("status", made["run_dir"], "--watch")
    stages = wait(cli, made["run_dir"], "success", 3 * JOB_LIMIT_S)  # three jobs
    train, evaluate = stages["train"], stages["evaluate"]
    check_what_was_watched(drawn)
    check_times(Path(made["run_dir"]), stages)
    assert evaluate["metrics"]["test_mAP"] == pytest.approx(train["best_val_mAP"], abs=1e-6)
    for job in ids.values():
        assert jobs.accounted(cluster, job, "JobID,State")[0] == [job, "COMPLETED"]
    folder = Path(made["run_dir"])
    used = {name: checkpoint_used(folder, name) for name in ("evaluate", "first")}
    assert used["evaluate"]["value"] == train["best_checkpoint"]
    assert used["evaluate"]["source"] == "parent_model of train"
    assert used["first"]["value"].endswith("/train/model_epoch_000.pth")
    assert used["first"]["source"] == "parent_model (epoch:0) of train"
    own = yaml.safe_load((folder / "jobs" / "evaluate" / "spec.yaml").read_text())
    assert own["evaluate"]["checkpoint"] == used["evaluate"]["value"]
    frozen = yaml.safe_load((folder / "spec.yaml").read_text())
    assert frozen["evaluate"]["checkpoint"] == ""
    assert (folder / "results" / "evaluate" / "metrics.json").is_file()
    assert json.loads((folder / "summary.json").read_text())["state"] == "success"

    # A finished run is continued by another, whose spec need not repeat what it was trained with.
    alone = {"dataset": {"test_data_sources": content["dataset"]["val_data_sources"]}}
    short = write_spec(cli.folder / "evaluate.yaml", alone)
    parent = ("--parent", str(folder))
    again = cli.json("submit", short, *parent, "--checkpoint", "last")
    scores = wait(cli, again["run_dir"], "success")["evaluate"]
    assert checkpoint_used(Path(again["run_dir"]), "evaluate")["value"] == train["last_checkpoint"]
    if train["last_checkpoint"] == train["best_checkpoint"]:
        assert scores["metrics"]["test_mAP"] == evaluate["metrics"]["test_mAP"]
    for wrong, said in {
        "model.hidden_dim=128": "model.hidden_dim: found 128; ",
        "job.checkpoint=epoch:7": "there is no checkpoint of epoch 7 in ",
    }.items():
        refused = cli("submit", short, *parent, wrong, code=2)
        assert said in refused.stderr


def checkpoint_used(folder: Path, stage: str) -> dict[str, Any]:
    """What the last start of a stage had in the place of its checkpoint."""
    inputs = json.loads((folder / "jobs" / stage / "inputs.json").read_text())
    [used] = [one for one in inputs if one["field"].endswith(".checkpoint")]
    return dict(used)


def check_what_was_watched(drawn: str) -> None:
    """The screen is taken and given back, shows bars meanwhile, and leaves the last page."""
    screen, _, left = drawn.rpartition("\x1b[?1049l")
    assert "\x1b[?1049h" in screen
    assert "━" in screen
    assert "stepping, step" in screen
    assert "stages       train success → evaluate success" in left


def check_times(folder: Path, stages: dict[str, Any]) -> None:
    """What efficiency.json says adds up, and is what `status` says."""
    for name, stage in stages.items():
        path = folder / "results" / name / "efficiency.json"
        found = json.loads(path.read_text())
        assert found["starts"] >= 1  # a machine under load may come to the time limit
        assert found["gpu_hours"] == 0, "the test cluster trains on CPUs"
        starting = found["starting_s"]
        assert {*starting} == {"container", "imports", "data", "model"}
        assert starting["container"] > 0
        assert starting["imports"] > 0
        parts = [*starting.values()]
        parts += [found[f"{one}_s"] for one in ("stepping", "validating", "saving", "idle")]
        assert sum(parts) == pytest.approx(found["allocated_s"], abs=2)
        assert 0 < found["share_in_steps"] < 1
        for key, value in stage["usage"].items():  # each is rounded for itself
            assert value == pytest.approx(found[key], abs=0.2), key
    assert stages["train"]["usage"]["saving_s"] > 0
    waited = stages["evaluate"]["usage"]["queued_s"]
    assert waited > stages["train"]["usage"]["allocated_s"]


def test_train_then_all_that_uses_it(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, deploy_site: Path
) -> None:
    """Scores, pictures, an ONNX file, and engines for two kinds of GPU, of what one training has
    learned, by Slurm's dependencies alone: those of TensorRT on its partition, in its image."""
    content = chain_spec(dataset, num_epochs=1)
    content["dataset"]["infer_data_sources"] = {"image_dir": [str(dataset.images("test"))]}
    content["export"] = {"input_height": 96, "input_width": 128, "on_cpu": True}
    content["export"]["serialize_nvdsinfer"] = True
    content["inference"] = {"conf_threshold": 0.0}
    content["gen_trt_engine"] = {"tensorrt": {"data_type": "FP16", "max_batch_size": 2}}
    spec = write_spec(cli.folder / "train.yaml", content)
    cli = replace(cli, env={**cli.env, "RTDETR_SLURM_SITE": str(deploy_site)})
    following = ("evaluate", "export", "inference")
    then = ",".join((*following, "gen_trt_engine", "trt_evaluate"))
    with held_queue(cluster):
        refused = cli("submit", spec, "--then", then, code=2)
        assert "job.runtime: missing; trt_evaluate runs an engine on the GPU" in refused.stderr
        made = cli.json("submit", spec, "--then", then, "job.runtime=onnxruntime")
        ids = {stage["name"]: stage["job_id"] for stage in made["stages"]}
        for name in following:
            assert waits_for(cluster, ids[name]).startswith(f"afterok:{ids['train']}")
        for target in ("l4", "a10"):
            build, score = (ids[f"{name}.{target}"] for name in ("gen_trt_engine", "trt_evaluate"))
            assert waits_for(cluster, build).startswith(f"afterok:{ids['export']}")
            assert waits_for(cluster, score).startswith(f"afterok:{build}")
            asked = cluster.command("squeue", "--noheader", f"--jobs={score}", "--format=%P %f %b")
            partition, feature, gpu = asked.split()
            assert (partition, feature) == (TENSORRT, FEATURE if target == "a10" else "(null)")
            assert gpu.endswith(f"gpu:{GPU_TYPE}:1" if target == "l4" else "gpu:1")
    stages = wait(cli, made["run_dir"], "success", 6 * JOB_LIMIT_S)  # eight jobs
    folder = Path(made["run_dir"])
    for name in following:
        assert checkpoint_used(folder, name)["value"] == stages["train"]["best_checkpoint"]
    check_export(folder, stages["train"]["best_checkpoint"])
    found = json.loads((folder / "results" / "inference" / "predictions.json").read_text())
    images = json.loads((folder / "results" / "inference" / "images.json").read_text())["images"]
    assert len(images) == len(list(dataset.images("test").iterdir()))
    assert {one["image_id"] for one in found} <= {one["id"] for one in images}
    images_used = json.loads((folder / "run.json").read_text())["images"]
    assert len(images_used) == 2
    for target, capability in (("l4", "8.9"), ("a10", "8.6")):
        check_engine(folder, target, capability)
    check_lineage(cli, folder)


def check_export(folder: Path, checkpoint: str) -> None:
    told = json.loads((folder / "results" / "export" / "export.json").read_text())
    assert told["onnx_file"] == str(folder / "results" / "export" / "rtdetr.onnx")
    assert told["checkpoint"] == checkpoint
    assert told["inputs"] == {"inputs": [None, 3, 96, 128]}
    assert told["parity"]["images"] > 0
    assert told["parity"]["unmatched"] <= 0.01 * told["parity"]["queries"]
    assert abs(told["parity"]["mAP_difference_points"]) < 0.1
    labels = (folder / "results" / "export" / "labels.txt").read_text().splitlines()
    assert labels[1:] == list(told["classes"].values())


def check_engine(folder: Path, target: str, capability: str) -> None:
    """The engine of a target is for its GPUs, and what scores it has taken that very one."""
    engine = folder / "results" / f"gen_trt_engine.{target}" / "rtdetr.engine"
    record = json.loads(engine.with_name("rtdetr.engine.json").read_text())
    assert (record["runtime"], record["compute_capability"]) == ("tensorrt_rtx", capability)
    assert (record["precision"], record["profile"]["max"]) == ("FP16", 2)
    assert record["source_onnx"] == str(folder / "results" / "export" / "rtdetr.onnx")
    inputs = json.loads((folder / "jobs" / f"trt_evaluate.{target}" / "inputs.json").read_text())
    [used] = [one for one in inputs if one["field"] == "evaluate.trt_engine"]
    assert (used["value"], used["sha256"]) == (str(engine), record["engine_sha256"])
    results = folder / "results" / f"trt_evaluate.{target}"
    parity = json.loads((results / "parity.json").read_text())
    assert [one["form"] for one in parity["forms"]] == ["checkpoint", "onnx", "engine"]
    assert parity["accepted"]
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["detections"] > 0


def check_lineage(cli: Cli, folder: Path) -> None:
    """From engine to data all is as recorded, until something changes."""
    engine = folder / "results" / "gen_trt_engine.l4" / "rtdetr.engine"
    found = cli.json("verify", engine)
    assert (found["outcome"], found["unknown"]) == ("whole", [])
    whats = {link["what"] for link in found["links"]}
    assert whats >= {"engine", "network", "ONNX file", "checkpoint", "spec", "image", "data"}
    with (folder / "spec.yaml").open("a") as spec:
        spec.write("\n")
    said = cli("verify", engine, code=1)
    assert re.findall(r"^BROKEN +(\w+)", said.stdout, re.MULTILINE) == ["spec"]


def test_a_queued_run_is_continued(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    """By a chain that is queued behind it: training goes on where it will have ended."""
    spec = write_spec(cli.folder / "train.yaml", chain_spec(dataset, num_epochs=1))
    with held_queue(cluster):
        parent = cli.json("submit", spec)
        onward = ("submit", spec, "--then", "evaluate", "--parent", parent["run_dir"])
        refused = cli(*onward, code=2)
        assert "train.num_epochs: found 1" in refused.stderr
        child = cli.json(*onward, "train.num_epochs=2")
        ids = {stage["name"]: stage["job_id"] for stage in child["stages"]}
        [waited_for] = parent["stages"]
        after = waits_for(cluster, ids["train"])
        assert after.startswith(f"afterok:{waited_for['job_id']}")
        assert waits_for(cluster, ids["evaluate"]).startswith(f"afterok:{ids['train']}")
    wait(cli, parent["run_dir"], "success")
    stages = wait(cli, child["run_dir"], "success", 2 * JOB_LIMIT_S)
    folder = Path(child["run_dir"])
    results = folder / "results" / "train"
    assert [path.name for path in results.glob("*.pth")] == ["model_epoch_001.pth"]
    own = yaml.safe_load((folder / "jobs" / "train" / "spec.yaml").read_text())
    resumed = own["train"]["resume_training_checkpoint_path"]
    assert resumed == f"{parent['run_dir']}/results/train/model_epoch_000.pth"
    assert checkpoint_used(folder, "evaluate")["value"] == stages["train"]["last_checkpoint"]


def test_what_comes_after_a_failed_stage_is_skipped(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path
) -> None:
    """Its follow-up, and the chain of another run that waits for it, all with the first reason."""
    broken = tmp_path / "images"
    shutil.copytree(dataset.images("train"), broken)
    victim = min(broken.iterdir())
    victim.write_bytes(b"not an image")
    spec = chain_spec(dataset)
    spec["dataset"]["train_data_sources"][0]["image_dir"] = str(broken)
    spec["job"] = {"then": ["evaluate"]}
    path = write_spec(cli.folder / "train.yaml", spec)
    with held_queue(cluster):
        made = cli.json("submit", path)
        child = cli.json("submit", path, "--parent", made["run_dir"], "train.num_epochs=3")
    stages = wait(cli, made["run_dir"], "failed")
    assert stages["train"]["failure"]["class"] == "config"
    assert stages["evaluate"]["state"] == "skipped"
    assert str(victim) in stages["evaluate"]["detail"]
    after = wait(cli, child["run_dir"], "skipped")
    for name, stage in after.items():
        assert stage["state"] == "skipped", name
        assert str(victim) in stage["detail"]
    assert after["evaluate"]["detail"].startswith("train skipped: train of ")
    for run in (made, child):
        summary = json.loads((Path(run["run_dir"]) / "summary.json").read_text())
        assert str(victim) in summary["stages"][1]["detail"]
    shown = cli("status", child["run_dir"]).stdout
    assert str(victim) in shown


def test_a_submit_that_dies_once_sbatch_has_answered_loses_nothing(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path, run_root: Path
) -> None:
    real = shutil.which("sbatch", path=cli.env["PATH"])
    (tmp_path / "bin").mkdir()
    wrapper = tmp_path / "bin" / "sbatch"
    wrapper.write_text(f'#!/bin/sh\n{real} "$@"\nkill -9 $PPID\n')
    wrapper.chmod(0o755)
    dying = Cli({**cli.env, "PATH": f"{tmp_path}/bin:{cli.env['PATH']}"}, cli.folder)
    before = set(run_root.iterdir())
    dying(
        "submit", write_spec(cli.folder / "train.yaml", train_spec(dataset, num_epochs=1)), code=-9
    )
    [folder] = set(run_root.iterdir()) - before
    assert [event["event"] for event in open_run(folder).events()][:1] == ["submitting"]
    deadline = time.monotonic() + JOB_LIMIT_S
    while (report := cli.report(folder))["state"] != "success":
        assert time.monotonic() < deadline, report
        time.sleep(1)


# Waits for a stop request, or for the file `end` beside the results folders.
_TASK = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(*_):
    (folder / "stopped").touch()
    sys.exit(75)
signal.signal(signal.SIGURG, stop)
(folder / "waits").touch()
while not (folder.parent / "end").exists():
    time.sleep(0.2)
"""


def test_one_task_of_an_array_is_stopped_and_requeued_and_the_others_live(
    cli: Cli,
    cluster: slurm.Slurm,
    dataset: Dataset,
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The task whose own job number is the array's: its bare number would reach all of them."""
    for name, value in cli.env.items():
        monkeypatch.setenv(name, value)
    spec = write_spec(cli.folder / "train.yaml", train_spec(dataset))
    run = freeze(as_array(prepare(spec, site=str(site)), size=3), print)
    array = submit_run(run)["train"]
    results = [task.results_dir for task in run.plan.tasks()]
    until(lambda: all((folder / "waits").exists() for folder in results), run)
    numbers = cluster.command("squeue", "--noheader", f"--jobs={array}", "--format=%K %A").split(
        "\n"
    )
    [own] = [task for task, number in map(str.split, filter(None, numbers)) if number == array]
    cluster.command("scancel", "--signal=USR2", "--batch", f"{array}_{own}")
    until(lambda: (results[int(own)] / "stopped").exists(), run)

    def restarts() -> dict[int, int]:
        started = [e for e in run.events() if e["event"] == "started"]
        return {e["task"]: e["restart"] for e in started}

    until(lambda: restarts()[int(own)] == 1, run)
    others = {0, 1, 2} - {int(own)}
    assert {task: restarts()[task] for task in others} == dict.fromkeys(others, 0)
    assert not any((results[task] / "stopped").exists() for task in others)
    states = {s["name"]: s["state"] for s in cli.json("status", run.path)["stages"]}
    assert states == {f"train.{task}": "running" for task in range(3)}
    cli("cancel", run.path)
    until(lambda: cli.report(run.path)["state"] == "cancelled", run)
    for task in range(3):
        jobs.wait(cluster, f"{array}_{task}")


def as_array(prepared: Prepared, size: int) -> Prepared:
    """The plan's only stage as an array of tasks that wait; no command line makes arrays yet."""
    [stage] = prepared.plan.stages
    script = f"import yaml, sys; code = {_TASK!r}; spec = yaml.safe_load(open('spec.yaml')); "
    script += "sys.argv[1:] = [spec['train']['results_dir']]; exec(code)"
    command = ("python", "-c", script)
    array = replace(stage, array=Array(size), command=command)
    return replace(prepared, plan=Plan((array,), prepared.plan.notes))


def until(condition: Callable[[], bool], run: Run) -> None:
    deadline = time.monotonic() + JOB_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, run.events()
        time.sleep(0.5)
