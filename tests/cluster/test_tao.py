"""`engine: tao`: NVIDIA TAO's entry point, by a stand-in for its images, under our contract."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.runs.events import read_events
from rtdetr_slurm.runs.status import read_status

from .harness import jobs, slurm
from .harness.cli import Cli, Submitted, submit, train_spec, write_spec
from .harness.data import Dataset
from .harness.slurm_conf import TENSORRT, TRAIN
from .harness.tao import tao_image
from .test_chain import wait

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="session")
def tao_site(site: Path, run_root: Path) -> dict[str, Any]:
    """The test cluster's profile with TAO's image."""
    profile: dict[str, Any] = yaml.safe_load(site.read_text())
    del profile["binds"]
    return profile | {"image": str(tao_image()), "engine": "tao", "signal_lead_s": 10}


def cli_of(cli: Cli, profile: dict[str, Any], name: str) -> Cli:
    path = cli.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(profile))
    return Cli({**cli.env, "RTDETR_SLURM_SITE": str(path)}, cli.folder)


def tao_spec(dataset: Dataset, **train: Any) -> dict[str, Any]:
    spec = train_spec(dataset, **train)
    spec["model"] |= {"backbone": "resnet_18", "expansion": 1}
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    return spec


@contextmanager
def taken_gpus(cluster: slurm.Slurm, folder: Path) -> Iterator[None]:
    """Somebody else has the first two GPUs of the last node."""
    options = (f"--partition={TENSORRT}", "--gpus-per-node=2", "--mem=1G")
    job = jobs.submit(cluster, folder, "sleep 600", *options)
    jobs.wait(cluster, job, until=frozenset({"RUNNING"}))
    try:
        yield
    finally:
        cluster.command("scancel", job)


def test_a_chain_in_taos_images(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tao_site: dict[str, Any], tmp_path: Path
) -> None:
    """Trained on two nodes, scored, exported, and built on a GPU that is not the node's first."""
    cli = cli_of(cli, tao_site, "site")
    results = tmp_path / "it's an experiment"
    onnx, built = results / "export" / "model.onnx", results / "gen_trt_engine" / "model.engine"
    spec = tao_spec(dataset, num_nodes=2, num_gpus=2, gpu_ids=[0, 1], num_epochs=3) | {
        "results_dir": str(results),
        "export": {"onnx_file": str(onnx)},
        "gen_trt_engine": {"onnx_file": str(onnx), "trt_engine": str(built)},
        "job": {"then": ["evaluate", "export", "gen_trt_engine"]},
    }
    with taken_gpus(cluster, tmp_path):
        made = cli.json("submit", write_spec(tmp_path / "train.yaml", spec))
        stages = wait(cli, made["run_dir"], "success")
    log = cli("logs", made["run_dir"]).stdout
    # Four ranks have met, on their devices, and see nothing of Slurm or of us.
    for rank in range(4):
        assert f"rank {rank} of 4 sees 0,1 []" in log
    assert "telemetry" not in log
    assert stages["train"]["epoch"] == 2
    assert stages["train"]["best_val_mAP"] == 0.5
    # Later epochs are worse, and the numbers of their lines are none of their checkpoints'.
    assert Path(stages["train"]["best_checkpoint"]).name == "model_epoch_000.pth"
    assert stages["evaluate"]["metrics"]["test_mAP"] == 0.5
    assert built.read_text() == "built on 2"
    [*_, last] = read_status(results / "train" / "status.json")
    assert (last["status"], last["claim"]) == ("SUCCESS", f"{Path(made['run_dir']).name}:train")
    node_1 = yaml.safe_load((Path(made["run_dir"]) / "jobs/train/node-1/spec.yaml").read_text())
    assert node_1["train"]["gpu_ids"] == [0, 1]


def test_what_tao_gets_wrong_is_no_success(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, tao_site: dict[str, Any], tmp_path: Path
) -> None:
    """Four runs at once: two nodes of which TAO would leave one out; an interruption that ends in
    exit code 0; a rank that fails without a word; and a preemption, on the GPU that is free."""
    spec = tao_spec(dataset, num_epochs=4)

    def run(fault: str, *overrides: str, partition: str = TRAIN) -> Submitted:
        profile = tao_site | {"env": {"TAO_FAULT": fault}, "partition": partition}
        path = write_spec(tmp_path / f"{fault}.spec.yaml", spec)
        return submit(cli_of(cli, profile, fault), path, *overrides)

    with taken_gpus(cluster, tmp_path):
        stopped = run("slow", partition=TENSORRT)
        alone = run("busy-port", "train.num_nodes=2", "job.max_infra_retries=0")
        interrupted = run("interrupt", "train.num_epochs=6")
        silent = run("exception", "train.num_epochs=8")
        stopped.wait(lambda stage: stage["epoch"] == 1)
        cluster.command("scancel", "--signal=USR2", "--batch", stopped.job)

        failure = alone.wait_for_end()["failure"]
        assert failure["class"] == "infra"
        assert "TAO has fallen back to another topology than that of the spec" in str(failure)
        assert "[Multinode] Using default configs" in alone.log()
        assert not list(alone.results.glob("*.pth"))
        failure = interrupted.wait_for_end()["failure"]
        assert "exit code 0, but TAO says: User/System interruption" in failure["evidence"]
        assert (interrupted.results / "model_epoch_000.pth").is_file()
        failure = silent.wait_for_end()["failure"]
        assert "AssertionError: something that TAO has no words for" in failure["evidence"]
        for failed in (alone, interrupted, silent):
            assert failed.status_lines()[-1]["status"] == "FAILURE"

        stopped.wait(lambda stage: stage["state"] == "success")
    assert stopped.stage()["restarts"] == 1
    lines = read_status(stopped.results / "status.json")
    resumed = [line["message"] for line in lines if "Resuming" in line.get("message", "")]
    assert len(resumed) == 1
    events: list[Any] = read_events(stopped.folder / "events")
    *_, last_inputs = [event["inputs"] for event in events if event["event"] == "resolved"]
    [path] = [one["value"] for one in last_inputs if "resume" in one["field"]]
    assert resumed[0].endswith(path)
    done = [line["epoch"] for line in lines if "progress" in line.get("message", "")]
    assert done == [0, 1, 2, 3]
    assert "rank 0 of 1 sees 2 []" in stopped.log()
    assert json.loads((stopped.folder / "summary.json").read_text())["state"] == "success"
