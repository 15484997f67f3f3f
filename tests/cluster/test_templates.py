"""The administrators' templates: filled by `render`, adapted by hand, sent with plain sbatch."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rtdetr_slurm.data.sample import write_sample
from rtdetr_slurm.resources import sbatch_dir

from .harness import jobs, slurm
from .harness.cli import JOB_LIMIT_S, Cli, train_spec, write_spec
from .harness.data import Dataset
from .harness.machine import HarnessError

pytestmark = pytest.mark.cluster


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """A training of one short epoch on a few small images."""
    write_sample(tmp_path / "data", train=8, val=4, size=96)
    return train_spec(Dataset(tmp_path / "data", real=False), num_epochs=1)


def sent(cluster: slurm.Slurm, folder: Path, *words: str | Path) -> str:
    return cluster.command("sbatch", "--parsable", f"--chdir={folder}", *words).strip()


def adapted(path: Path, profile: dict[str, Any], data: Path) -> None:
    """What an administrator writes into the second block of a template."""
    binds = [(bind["source"], bind["target"]) for bind in profile["binds"]] + [(data, data)]
    mounts = " ".join(f"'type=bind,source={here},destination={there},ro'" for here, there in binds)
    values = {
        "IMAGE": profile["image"],
        "APPTAINER": profile["apptainer"],
        "APPTAINER_FLAGS": f"({' '.join(profile['apptainer_flags'])})",
        "BINDS": f"({mounts})",
        "ACCELERATOR": "cpu",
    }
    text = path.read_text()
    for name, value in values.items():
        text, count = re.subn(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        assert count == 1, name
    path.write_text(text.replace("--cpus-per-task=8", "--cpus-per-task=2"))


def test_rendered_and_by_hand_they_train(
    cli: Cli, cluster: slurm.Slurm, site: Path, spec: dict[str, Any], tmp_path: Path
) -> None:
    path = write_spec(tmp_path / "train.yaml", spec)
    topology = ("train.num_nodes=2", "train.num_gpus=2", "train.gpu_ids=[0,1]")
    made = cli.json("render", path, *topology, "dataset.batch_size=2", "-o", tmp_path / "kit")
    script = Path(made["files"]["train"])
    rendered = sent(cluster, tmp_path, script)

    shutil.copytree(sbatch_dir(), tmp_path / "sbatch")
    sweep = tmp_path / "sbatch" / "sweep.sbatch"
    adapted(sweep, yaml.safe_load(site.read_text()), tmp_path / "data")
    (tmp_path / "trials").write_text("train.optim.lr=2e-4\ntrain.optim.lr=3e-4 train.seed=7\n")
    array = sent(cluster, tmp_path, sweep, path, "trials")

    for job in (rendered, f"{array}_0", f"{array}_1"):
        assert jobs.wait(cluster, job, seconds=JOB_LIMIT_S) == "COMPLETED", log(tmp_path)
    text = (tmp_path / f"rtdetr-train-{rendered}.out").read_text()
    for rank in (0, 1):
        assert f"torchrun --nnodes=2 --node-rank={rank} --nproc-per-node=2" in text
    assert "4 ranks hold equal weights" in text
    [results] = re.findall(r"^RESULTS=(.*)$", script.read_text(), re.MULTILINE)
    assert (Path(results) / "model_epoch_000.pth").is_file()
    rates = []
    for task in (0, 1):
        folder = tmp_path / f"rtdetr-{array}" / str(task) / "results" / "train"
        assert (folder / "model_epoch_000.pth").is_file()
        rates.append(
            yaml.safe_load((folder / "experiment.yaml").read_text())["train"]["optim"]["lr"]
        )
    assert rates == [2e-4, 3e-4]


def log(folder: Path) -> str:
    return "\n".join(path.read_text() for path in sorted(folder.glob("*.out")))


def test_data_is_staged_whole(cluster: slurm.Slurm, tmp_path: Path) -> None:
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "a.jpg").write_text("picture")
    archive = shutil.make_archive(str(tmp_path / "set"), "gztar", tmp_path / "set")
    target = tmp_path / "fast storage"
    words = ("--partition=train", sbatch_dir() / "stage.sbatch", archive, target)
    first = sent(cluster, tmp_path, *words)
    assert jobs.wait(cluster, first) == "COMPLETED", log(tmp_path)
    assert (target / "images" / "a.jpg").read_text() == "picture"
    wrong = sent(cluster, tmp_path, *words[:3], f"{target}2", "0" * 64)
    assert jobs.wait(cluster, wrong) == "FAILED"
    assert "has sha256" in log(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("fast*")) == ["fast storage"]


@pytest.fixture
def job_submit(cluster: slurm.Slurm) -> Iterator[None]:
    """The example plugin, where slurmctld takes it up for a moment."""
    before = cluster.conf.read_text()
    shutil.copy(sbatch_dir() / "job_submit.lua", cluster.state)
    cluster.conf.write_text(f"{before}JobSubmitPlugins=lua\n")
    cluster.command("scontrol", "reconfigure")
    yield
    cluster.conf.write_text(before)
    cluster.command("scontrol", "reconfigure")


@pytest.mark.usefixtures("job_submit")
def test_the_job_submit_example_holds_the_limits(cluster: slurm.Slurm, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n")
    held = ("--hold", f"--output={tmp_path}/out")
    marked = (*held, "--comment=rtdetr-slurm:run:train")
    ours = (*marked, "--partition=train")

    with pytest.raises(HarnessError, match="say in which partition"):
        sent(cluster, tmp_path, *marked, "--time=10", script)
    with pytest.raises(HarnessError, match="at most 8 nodes; this job asks for 9"):
        sent(cluster, tmp_path, *ours, "--time=10", "--nodes=9", script)
    with pytest.raises(HarnessError, match="say how long"):
        sent(cluster, tmp_path, *ours, script)
    job = sent(cluster, tmp_path, *ours, "--time=10", script)
    other = sent(cluster, tmp_path, *held, script)
    with pytest.raises(HarnessError, match="scontrol update"):
        cluster.command("scontrol", "update", f"JobId={job}", "Comment=mine")
    assert "Comment=rtdetr-slurm:run:train" in cluster.command("scontrol", "show", "job", job)
    cluster.command("scancel", job, other)
