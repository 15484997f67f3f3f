"""The main job, end to end: `rtdetr-slurm` → Slurm → Apptainer → torchrun → RT-DETR."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest
import torch
import yaml

from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.runs.secrets import secrets_file
from rtdetr_slurm.slurm.client import SlurmClient

from .harness import jobs, slurm
from .harness.cli import (
    JOB_LIMIT_S,
    Cli,
    Submitted,
    held_queue,
    submit,
    train_spec,
    write_spec,
)
from .harness.data import Dataset

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def trained(
    cli_env: dict[str, str], dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Submitted:
    """The main job: two nodes with two GPUs each, to its end."""
    cli = Cli(cli_env, tmp_path_factory.mktemp("submit"))
    spec = train_spec(dataset, num_nodes=2, num_gpus=2, gpu_ids=[0, 1])
    run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
    run.wait(lambda stage: stage["state"] == "success")
    return run


def test_four_ranks_train_one_detector(trained: Submitted) -> None:
    log = trained.log()
    for rank in (0, 1):
        assert f"torchrun --nnodes=2 --node-rank={rank} --nproc-per-node=2 --master-addr=" in log
    assert not re.search(r"^INFO:|Warning", log, re.MULTILINE)  # of Apptainer, of libraries
    # The engine compares the weights of all ranks before it writes a checkpoint.
    assert re.findall(r"(\d+) ranks hold equal weights \(spread (\S+)\)", log) == [("4", "0")] * 2
    names = sorted(path.name for path in trained.results.glob("*.pth"))
    assert names == ["model_epoch_000.pth", "model_epoch_001.pth"]
    content = torch.load(trained.results / names[-1], weights_only=True)
    assert content["world_size"] == 4
    assert len(content["rng"]) == 4
    assert all(torch.isfinite(t).all() for t in content["model"].values() if t.is_floating_point())


def test_one_status_file_ends_in_success(trained: Submitted) -> None:
    assert len(list(trained.folder.rglob("status.json"))) == 1
    lines = trained.status_lines()
    assert lines[0]["status"] == "STARTED"
    assert lines[-1]["status"] == "SUCCESS"
    epochs = [line for line in lines if "epoch" in line]
    assert [line["epoch"] for line in epochs] == [0, 1]
    assert {"train_loss", "val_mAP", "val_mAP50", "val_loss"} <= set(epochs[-1]["kpi"])
    assert all(line["schema_version"] == 1 for line in lines)


def test_status_and_sacct_agree(trained: Submitted, cluster: slurm.Slurm) -> None:
    stage = trained.stage()
    assert (stage["state"], stage["job_id"]) == ("success", trained.job)
    [job, batch, *steps] = jobs.accounted(cluster, trained.job, "JobID,State,AllocTRES")
    assert job[:2] == [trained.job, "COMPLETED"]
    assert "gres/gpu=4" in job[2]
    assert batch[1] == "COMPLETED"
    assert [step[1] for step in steps if step[0] == f"{trained.job}.0"] == ["COMPLETED"]
    # Accounting keeps no comment, as with Slurm's defaults: the folder tells whose job it is.
    [known] = (
        SlurmClient(environ={**os.environ, **cluster.environment()}).sacct([trained.job]).values()
    )
    assert (known.comment, known.work_dir) == ("", str(trained.folder))
    table = trained.cli("status").stdout
    assert re.search(rf"{trained.folder.name}.*success.*{trained.job}", table)


def test_record_of_the_run(trained: Submitted) -> None:
    manifest = json.loads((trained.folder / "run.json").read_text())
    [image] = manifest["images"].values()
    assert re.fullmatch(r"[0-9a-f]{64}", image["sha256"])
    assert image["version"] == manifest["package_version"]
    assert trained.events() == ["submitting", "submitted", "started", "resolved", "finished"]
    frozen = yaml.safe_load((trained.folder / "spec.yaml").read_text())
    assert frozen["train"]["gpu_ids"] == [0, 1]
    assert "job" not in frozen
    metrics = json.loads((trained.results / "metrics.json").read_text())
    assert 0 <= metrics["metrics"]["mAP50"] <= 1
    assert (trained.results / "annotated.jpg").stat().st_size > 1000
    assert list(trained.results.rglob("events.out.tfevents.*"))


def test_trained_checkpoint_is_evaluated_on_two_nodes(
    trained: Submitted, cli: Cli, dataset: Dataset
) -> None:
    spec = train_spec(dataset)
    spec["dataset"]["test_data_sources"] = spec["dataset"]["val_data_sources"]
    spec["evaluate"] = {
        "checkpoint": str(trained.results / "model_epoch_001.pth"),
        "num_nodes": 2,
    }
    del spec["train"]
    run = submit(cli, write_spec(cli.folder / "evaluate.yaml", spec))
    run.wait(lambda stage: stage["state"] == "success")
    kpi = run.status_lines()[-1]["kpi"]
    trained_kpi = [line for line in trained.status_lines() if "epoch" in line][-1]["kpi"]
    assert kpi["test_mAP"] == pytest.approx(trained_kpi["val_mAP"], abs=1e-6)
    scored, before = (
        json.loads(path.read_text())
        for path in (run.results / "metrics.json", trained.results / "metrics_epoch_001.json")
    )
    assert scored["detections"] == before["detections"]
    assert scored["metrics"] == pytest.approx(before["metrics"], abs=1e-6)
    assert (run.results / "report.html").stat().st_size > 1000


def test_preempted_run_goes_on_at_its_step(
    cli_env: dict[str, str], cluster: slurm.Slurm, dataset: Dataset, tmp_path: Path, site: Path
) -> None:
    """Preempted twice: while module lines run, and in its second epoch. With a key, which every
    start has, and which is in nothing that the run leaves."""
    modules = [f"touch {tmp_path}/modules", "sleep 2"]
    profile = yaml.safe_load(site.read_text()) | {"module_lines": modules}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(profile))
    cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(tmp_path / "site.yaml")}, tmp_path)
    spec = train_spec(dataset, num_gpus=2, gpu_ids=[0, 1], num_epochs=6)
    spec["encryption_key"] = key = "hunter2-of-the-cluster"
    run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
    secrets = secrets_file(run.folder)
    assert (secrets.stat().st_mode & 0o777, key in secrets.read_text()) == (0o600, True)
    assert key not in cluster.command("scontrol", "write", "batch_script", run.job, "-")
    while not (tmp_path / "modules").exists():
        time.sleep(0.1)
    # What Slurm sends before the time limit, and on preemption with send_user_signal.
    cluster.command("scancel", "--signal=USR2", "--batch", run.job)
    run.wait(lambda stage: stage["restarts"] == 1)
    assert "starts nothing, for it has been asked to stop already (preempted)" in run.log()
    run.wait(lambda stage: stage["epoch"] is not None)
    cluster.command("scancel", "--signal=USR2", "--batch", run.job)
    run.wait(lambda stage: stage["restarts"] == 2)
    run.wait(lambda stage: stage["state"] == "success")
    assert run.events().count("requeued") == 2
    assert f"{run.folder}/jobs/controller.zip node {run.folder} train" in run.log()
    statuses = [line["status"] for line in run.status_lines()]
    assert statuses.count("PREEMPTED") == 2
    assert statuses[-1] == "SUCCESS"
    epochs = [line for line in run.status_lines() if "epoch" in line and "kpi" in line]
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3, 4, 5]
    assert [line["step"] for line in epochs] == [
        (line["epoch"] + 1) * epochs[0]["step"] for line in epochs
    ]
    resumed = re.search(
        r"goes on from .*interrupted_epoch_\d+_step_\d+\.pth: \d+ of 6 epochs .*, (\d+) steps",
        run.log(),
    )
    assert resumed is not None
    assert int(resumed[1]) >= epochs[0]["step"]
    assert not list(run.results.glob("interrupted*.pth"))
    assert load_checkpoint(run.results / "model_epoch_005.pth", key)["epoch"] == 5
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert [path for path in files if key.encode() in path.read_bytes()] == []


def assert_failed_with(run: Submitted, message: str, failure_class: str) -> None:
    deadline = time.monotonic() + JOB_LIMIT_S
    while (stage := run.stage())["state"] in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(1)
    assert stage["state"] == "failed", stage
    last = run.status_lines()[-1]
    assert last["status"] == "FAILURE"
    assert last["failure_class"] == failure_class
    assert re.search(message, last["reason"]), last["reason"]
    assert "\n" not in last["reason"]
    assert stage["failure"]["evidence"] == last["reason"]
    assert "Traceback" not in run.log()


def test_fewer_gpus_than_the_spec_says(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    spec = train_spec(dataset, num_nodes=2, num_gpus=2, gpu_ids=[0, 1])
    with held_queue(cluster):
        run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
        cluster.command("scontrol", "update", f"JobId={run.job}", "TresPerNode=gres:gpu:1")
    assert_failed_with(run, r"allocation has 1 GPUs.*train\.num_gpus is 2", "infra")


def test_fewer_nodes_than_the_spec_says(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    """The script of a two-node run, sent by hand with another number of nodes."""
    spec = train_spec(dataset, num_nodes=2, num_gpus=2, gpu_ids=[0, 1])
    with held_queue(cluster):
        run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
        script = run.folder / "jobs" / "train" / "job.sh"
        by_hand = cluster.command("sbatch", "--parsable", "--nodes=1", script).strip()
        cluster.command("scancel", run.job)
    assert jobs.wait(cluster, by_hand, seconds=120) == "FAILED"
    last = run.status_lines()[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "infra")
    assert re.search(r"allocation has 1 nodes, .*train\.num_nodes is 2", last["reason"])


def test_image_that_cannot_be_decoded(cli: Cli, dataset: Dataset, tmp_path: Path) -> None:
    broken = tmp_path / "images"
    shutil.copytree(dataset.images("train"), broken)
    victim = min(broken.iterdir())
    victim.write_bytes(b"not an image")
    spec = train_spec(dataset)
    spec["dataset"]["train_data_sources"][0]["image_dir"] = str(broken)
    run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
    assert_failed_with(run, re.escape(str(victim)), "config")


def test_cancel_ends_the_job(cli: Cli, cluster: slurm.Slurm, dataset: Dataset) -> None:
    spec = train_spec(dataset, num_epochs=500, checkpoint_interval=500, validation_interval=500)
    run = submit(cli, write_spec(cli.folder / "train.yaml", spec))
    run.wait(lambda stage: stage["epoch"] is not None)
    cli("cancel", run.folder)
    jobs.wait(cluster, run.job, seconds=120)
    assert run.stage()["state"] == "cancelled"
    last = run.status_lines()[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "cancelled")


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """Another Python than the one that submits, with the same packages; says what it sees."""
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    # addsitedir also reads the .pth files there: the working tree may be installed by one.
    start = f"import os, site; site.addsitedir({sysconfig.get_path('purelib')!r}); "
    start += "print('sees', os.environ.get('FROM_SITE'), os.environ.get('FROM_MODULE'))"
    (packages / "same.pth").write_text(f"{start}\n")
    return venv / "bin" / "python"


def test_two_nodes_train_without_a_container(
    cli_env: dict[str, str], dataset: Dataset, tmp_path: Path, site: Path, other_python: Path
) -> None:
    known = yaml.safe_load(site.read_text())
    profile = known | {
        "roles": {"train": {"container": "none", "python": str(other_python)}},
        "env": [*known["env"], {"FROM_SITE": "a, b"}],
        "module_lines": ["export FROM_MODULE=loaded"],
    }
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(profile))
    cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(tmp_path / "site.yaml")}, tmp_path)
    run = submit(cli, write_spec(tmp_path / "train.yaml", train_spec(dataset, num_nodes=2)))
    run.wait(lambda stage: stage["state"] == "success")
    log = run.log()
    assert log.count(f"becomes {other_python} -m rtdetr_slurm.engine.process.entry train") == 2
    assert "sees a, b loaded" in log
    assert json.loads((run.folder / "run.json").read_text())["images"] == {}


def test_strange_paths(
    cli_env: dict[str, str], dataset: Dataset, tmp_path: Path, site: Path
) -> None:
    folder = tmp_path / '-it\'s a "strange", path: $(x) `x` $1 (1) ü'
    folder.mkdir()
    images = folder / "train images, a:b"
    images.symlink_to(dataset.images("train"))
    profile = yaml.safe_load(site.read_text())
    profile["run_root"] = str(folder / "all runs").replace("$", "$$")
    (folder / "site.yaml").write_text(yaml.safe_dump(profile))
    cli = Cli({**cli_env, "RTDETR_SLURM_SITE": str(folder / "site.yaml")}, folder)
    spec = train_spec(dataset, num_epochs=1)
    spec["dataset"]["train_data_sources"][0]["image_dir"] = str(images)
    done = cli("submit", write_spec(folder / "train.yaml", spec), "--wait")
    assert re.search(r"^val_mAP50\s+\d\.\d{4}$", done.stdout, re.MULTILINE)
    for name in ("picture", "report"):
        file = re.search(rf"^{name}\s+(.+)$", done.stdout, re.MULTILINE)
        assert file is not None
        assert Path(file[1]).is_file()


def test_dry_run_touches_nothing(
    cli: Cli, cluster: slurm.Slurm, dataset: Dataset, run_root: Path
) -> None:
    def queued() -> set[str]:
        return set(cluster.command("squeue", "--noheader", "--format=%A").split())

    before, others = sorted(run_root.iterdir()), queued()  # of earlier tests, and about to end
    spec = train_spec(dataset, num_nodes=2, num_gpus=2, gpu_ids=[0, 1])
    shown = cli("submit", write_spec(cli.folder / "train.yaml", spec), "--dry-run").stdout
    assert "#SBATCH --nodes=2" in shown
    assert "#SBATCH --gpus-per-node=2" in shown
    assert "#SBATCH --signal=B:USR2@60" in shown
    assert sorted(run_root.iterdir()) == before
    assert queued() <= others
    assert [path.name for path in cli.folder.iterdir()] == ["train.yaml"]
