"""Training on two GPUs of this machine, over NCCL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, open_workspace
from ranks import run_ranks
from torch import nn

from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.parallel import distribute

pytestmark = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason=f"needs 2 GPUs, found {torch.cuda.device_count()}"
)
RANKS = 2
TWO = ("train.num_gpus=2", "train.gpu_ids=[0,1]", "dataset.batch_size=2")


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path) as opened:
        yield opened


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_training(workspace: Workspace, strategy: str) -> None:
    spec, asked = workspace.spec_file(), f"train.distributed_strategy={strategy}"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("rtdetr")), "train", "-e", str(spec), *TWO, asked],
        env=os.environ | {"RTDETR_ACCELERATOR": "cuda"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert (workspace.results / "train" / "model_epoch_001.pth").is_file()
    assert workspace.status()[-1]["status"] == "SUCCESS"


class Norm(nn.Module):
    """Stands for a detector: what `distribute` looks at are its children."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def _norms_see_all(context: Context) -> None:
    model = Norm().to(context.device)
    wrapped = distribute(model, model.backbone, context)  # type: ignore[arg-type]
    assert isinstance(model.backbone[1], nn.SyncBatchNorm)
    assert wrapped is not model.backbone
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)).to(context.device)
    whole = nn.BatchNorm2d(4).to(context.device)
    features = model.backbone[0](images).detach()
    found = model.backbone[1](features[context.rank :: RANKS])
    torch.testing.assert_close(found, whole(features)[context.rank :: RANKS])


def test_batch_norm_sees_the_batches_of_both() -> None:
    run_ranks(_norms_see_all, accelerator="cuda")
