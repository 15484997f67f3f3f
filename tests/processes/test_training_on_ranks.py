"""Two ranks over gloo, started the way a job starts them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, session_of, workspace  # noqa: F401
from process_support import children
from ranks import run_ranks

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

TWO_RANKS = ["train.num_gpus=2", "train.gpu_ids=[0,1]", "dataset.batch_size=2"]


def start(workspace: Workspace, *overrides: str) -> subprocess.Popen[str]:
    """`rtdetr train` on two ranks, one thread each, on a site with a deep scratch folder."""
    command = ["rtdetr", "train", "-e", str(workspace.spec_file()), *TWO_RANKS, *overrides]
    return run_by_hand(workspace, command)


def run_by_hand(workspace: Workspace, command: list[str]) -> subprocess.Popen[str]:
    scratch = workspace.root / "scratch" / ("of-one-job-" * 8)
    scratch.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "TMPDIR": str(scratch),
        "RTDETR_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=180)
    return process.returncode, output


@pytest.fixture
def sparse(workspace: Workspace) -> Workspace:
    """Half of the training images have no boxes, so that whole batches have none."""
    path = workspace.data / "train" / "annotations.json"
    content = json.loads(path.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] % 2]
    path.write_text(json.dumps(content))
    return workspace


def epoch_kpis(folder: Path) -> dict[int, dict[str, float]]:
    lines = read_status(folder / "status.json")
    return {line["epoch"]: line["kpi"] for line in lines if "epoch" in line}


def train_whole(context: Context, spec: Path, results: Path) -> None:
    overrides = [*TWO_RANKS, f"results_dir={results}"]
    train(session_of(load_spec(spec, overrides, action="train"), context))
    score = ["evaluate.num_gpus=2", "evaluate.gpu_ids=[0,1]", "evaluate.batch_size=1"]
    score += [f"evaluate.checkpoint={results / 'train' / 'model_epoch_001.pth'}"]
    evaluate(session_of(load_spec(spec, [*overrides, *score], action="evaluate"), context))


def test_interrupted_at_once_and_resumed(sparse: Workspace) -> None:
    """Ctrl-C while the ranks start; they stop after their first step; the command that is printed
    does the rest; and it is the same training as one that was never stopped."""
    process = start(sparse)
    assert process.stdout is not None
    line = process.stdout.readline()
    while "torchrun" not in line:
        line = process.stdout.readline()
    assert "torchrun --nnodes=1 --node-rank=0 --nproc-per-node=2" in line
    process.send_signal(signal.SIGINT)
    code, output = end(process)
    assert code == 75, output
    assert "Traceback" not in output
    assert "exitcode" not in output  # torchrun's own words
    assert [line["status"] for line in sparse.status()] == ["STARTED", "PREEMPTED"]
    folder = sparse.results / "train"
    stopped = load_checkpoint(folder / "interrupted_epoch_000_step_000001.pth")
    assert (stopped["epoch"], stopped["step_in_epoch"]) == (0, 1)

    *_, onward = output.splitlines()
    said, _, command = onward.partition(" with: ")
    assert said == "rtdetr: by hand this goes on"
    code, output = end(run_by_hand(sparse, shlex.split(command)))
    assert code == 0, output
    assert "2 ranks hold equal weights (spread 0)" in output
    assert "temporary files are in /tmp: the path of TMPDIR" in output
    assert "Warning" not in output
    assert [line["status"] for line in sparse.status()[2:]] == [
        "STARTED",
        "RUNNING",
        "RUNNING",
        "SUCCESS",
    ]
    resumed = load_checkpoint(folder / "model_epoch_001.pth")
    assert len(resumed["rng"]) == 2

    whole = sparse.root / "whole" / "train"
    run_ranks(train_whole, sparse.root / "spec.yaml", whole.parent)
    expected = load_checkpoint(whole / "model_epoch_001.pth")
    for name, tensor in expected["model"].items():
        torch.testing.assert_close(resumed["model"][name], tensor, rtol=0, atol=1e-5, msg=name)
    kpis, again = epoch_kpis(whole), epoch_kpis(folder)
    assert kpis.keys() == {0, 1}
    for epoch, kpi in kpis.items():
        assert again[epoch] == pytest.approx(kpi, abs=1e-5)

    # Ranks and batches do not matter: of an odd number of images each counts once.
    checkpoint = f"evaluate.checkpoint={whole / 'model_epoch_001.pth'}"
    alone = evaluate(sparse.session(checkpoint, name="evaluate"))
    assert alone["test_mAP"] == pytest.approx(kpis[1]["val_mAP"], abs=1e-6)
    scored = [
        json.loads((folder / "evaluate" / "metrics.json").read_text())
        for folder in (sparse.results, whole.parent)
    ]
    assert scored[0]["detections"] == scored[1]["detections"] > 0
    assert scored[0]["confusion"] == scored[1]["confusion"]
    assert scored[0]["metrics"] == pytest.approx(scored[1]["metrics"], abs=1e-6)


def test_failure_of_another_rank_is_told(workspace: Workspace) -> None:
    """Rank 1 meets a broken image; status.json gets its reason, once, though rank 0 writes it."""
    from rtdetr_slurm.engine.datasets.sampler import DistributedBatchSampler

    sampler = DistributedBatchSampler(12, 2, rank=1, ranks=2, seed=7)
    image = next(iter(sampler))[0][1] + 1
    path = workspace.data / "train" / "images" / f"{image:06d}.jpg"
    path.write_text("broken")
    code, output = end(start(workspace))
    assert code == 1, output
    lines = workspace.status()
    assert [line["status"] for line in lines] == ["STARTED", "FAILURE"]
    assert lines[-1]["failure_class"] == "config"
    assert f"image {path} cannot be decoded" in lines[-1]["reason"]
    assert f"rtdetr: error: rank 1: image {path} cannot be decoded" in output


def test_killed_rank_is_told(workspace: Workspace) -> None:
    """As the kernel does when the memory is full."""
    process = start(workspace, "train.num_epochs=1000")
    deadline = time.monotonic() + 120
    while not any("epoch" in line for line in workspace.status()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(max(children(process.pid)), signal.SIGKILL)
    code, output = end(process)
    assert code == 1, output
    last = workspace.status()[-1]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "unknown")
    assert "was killed by SIGKILL" in last["reason"]
