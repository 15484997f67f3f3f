"""Two ranks over gloo, started the way a job starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from engine_support import Workspace, workspace  # noqa: F401

from rtdetr_slurm.engine.actions.evaluate import evaluate
from rtdetr_slurm.engine.process.rendezvous import free_port
from rtdetr_slurm.engine.process.torchrun import children
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

TWO_RANKS = ["train.num_gpus=2", "train.gpu_ids=[0,1]", "dataset.batch_size=2"]


def start(workspace: Workspace, *overrides: str, resume: bool = False) -> subprocess.Popen[str]:
    """`rtdetr train` on two ranks, one thread each."""
    environment = os.environ | {
        "RTDETR_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "RTDETR_RESUME": "1" if resume else "0",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "rtdetr_slurm.engine.process.entry", "train", "-e",
         str(workspace.spec_file()), *TWO_RANKS, *overrides],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


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


def test_interrupted_at_once_and_resumed(sparse: Workspace) -> None:
    """TERM while the workers start; they stop after their first step; the rest follows; and it is
    the same training as one that was never stopped."""
    code, output = end(start(sparse))
    assert code == 0, output
    folder = sparse.results / "train"
    assert [line["status"] for line in sparse.status()] == [
        "STARTED",
        "RUNNING",
        "RUNNING",
        "SUCCESS",
    ]
    whole = load_checkpoint(folder / "model_epoch_001.pth")
    assert "2 ranks hold equal weights (spread 0)" in output
    assert len(whole["rng"]) == 2
    assert "torchrun --nnodes=1 --node-rank=0 --nproc-per-node=2" in output
    scored = whole["metrics"]["metrics"]["mAP"]
    checkpoint = f"evaluate.checkpoint={folder / 'model_epoch_001.pth'}"
    alone = evaluate(sparse.session(checkpoint, name="evaluate"))
    assert alone["test_mAP"] == pytest.approx(scored, abs=1e-6)  # ranks and batches do not matter
    losses = {line["epoch"]: line["kpi"] for line in sparse.status() if "epoch" in line}
    sparse.results.rename(sparse.root / "whole")

    process = start(sparse)
    assert process.stdout is not None
    while "torchrun" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGTERM)
    code, output = end(process)
    assert code == 75, output
    assert "Traceback" not in output
    assert "exitcode" not in output  # torchrun's own words
    assert [line["status"] for line in sparse.status()] == ["STARTED", "PREEMPTED"]
    stopped = load_checkpoint(folder / "interrupted_epoch_000_step_000001.pth")
    assert (stopped["epoch"], stopped["step_in_epoch"], stopped["complete"]) == (0, 1, False)

    code, output = end(start(sparse, resume=True))
    assert code == 0, output
    assert [line["status"] for line in sparse.status()[2:]] == [
        "STARTED",
        "RUNNING",
        "RUNNING",
        "SUCCESS",
    ]
    again = {line["epoch"]: line["kpi"] for line in sparse.status() if "epoch" in line}
    for epoch, kpi in losses.items():
        assert again[epoch] == pytest.approx(kpi, abs=1e-5)
    resumed = load_checkpoint(folder / "model_epoch_001.pth")
    for name, tensor in whole["model"].items():
        torch.testing.assert_close(resumed["model"][name], tensor, rtol=0, atol=1e-5, msg=name)


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
    assert (last["status"], last["failure_class"]) == ("FAILURE", "oom_host")
    assert "was killed by SIGKILL" in last["reason"]


COLLECTIVES = """
import torch
from torch import nn
from rtdetr_slurm.engine.process import distributed as d
from rtdetr_slurm.errors import RequestError

context = d.join("cpu")
rank = context.rank
assert (context.world_size, context.is_main) == (2, rank == 0)
assert d.sum_over_ranks(torch.tensor(float(rank + 1))).item() == 3
assert d.gather_objects({"rank": rank}) == ([{"rank": 0}, {"rank": 1}] if rank == 0 else [])
assert d.on_main(lambda: f"from {rank}") == "from 0"

def refuse():
    raise RequestError("no")

try:
    d.on_main(refuse)
    raise SystemExit("nothing was raised")
except RequestError as error:
    assert str(error) == "no"

norm = nn.BatchNorm1d(3)
whole = nn.BatchNorm1d(3)
torch.manual_seed(0)
means = torch.zeros(3)
for step in range(3):  # averaged at the end or at every step: the same
    batches = torch.randn(2, 8, 3)
    norm(batches[rank])
    means = 0.9 * means + 0.1 * batches.mean(1).mean(0)
d.average_norm_statistics(nn.Sequential(norm))
torch.testing.assert_close(norm.running_mean, means)
assert norm.num_batches_tracked == 3
d.barrier()
d.leave()
"""


def test_collectives() -> None:
    environment = os.environ | {
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", COLLECTIVES],
            env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
