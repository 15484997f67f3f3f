"""Two ranks that hold half of the model each, against two that hold all of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_support import Workspace, session_of, workspace  # noqa: F401
from model_support import images, small_model
from ranks import run_ranks
from torch.distributed.tensor import DTensor

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training import state
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.parallel import split
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

EVERY = [
    "train.num_gpus=2",
    "dataset.batch_size=2",
    "train.checkpoint_interval=1",
    "train.enable_ema=true",
    "train.ema.decay=0.9",
    "train.freeze=[encoder.pan_blocks]",
    # Adam makes steps of this size of gradients that are nothing but rounding.
    "train.optim.lr=1e-4",
    "train.optim.lr_backbone=1e-5",
]
FSDP = "train.distributed_strategy=fsdp"


def train_on_rank(context: Context, spec: Path, runs: list[list[str]]) -> None:
    for overrides in runs:
        train(session_of(load_spec(spec, [*EVERY, *overrides], action="train"), context))


def leaves(content: Any, at: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], Any]:
    """All values of a checkpoint but its spec, by where they are."""
    if isinstance(content, Mapping):
        found = {key: value for key, value in content.items() if (*at, key) != ("spec",)}
    elif isinstance(content, list):
        found = dict(enumerate(content))
    else:
        return {at: content}
    inner = [leaves(value, (*at, key)) for key, value in found.items()]
    return {place: value for one in inner for place, value in one.items()}


def assert_equal_checkpoints(ours: Path, theirs: Path, atol: float) -> None:
    one, other = leaves(load_checkpoint(ours)), leaves(load_checkpoint(theirs))
    assert one.keys() == other.keys()
    for place, value in one.items():
        assert type(value) is type(other[place]), place
        if isinstance(value, torch.Tensor):
            assert not isinstance(value, DTensor), place
            torch.testing.assert_close(value, other[place], rtol=0, atol=atol, msg=str(place))
        elif isinstance(value, float):
            assert value == pytest.approx(other[place], abs=atol), place
        else:
            assert value == other[place], place


def assert_equal_kpis(ours: Path, theirs: Path, abs: float) -> None:
    one, other = (
        {
            line["epoch"]: line["kpi"]
            for line in read_status(folder / "status.json")
            if "kpi" in line
        }
        for folder in (ours, theirs)
    )
    assert one.keys() == other.keys() == {0, 1}
    for epoch, kpi in one.items():
        assert kpi == pytest.approx(other[epoch], abs=abs)


def test_the_same_training_as_with_ddp(workspace: Workspace) -> None:
    """Losses, scores and checkpoints are equal, and each goes on from the other's checkpoint."""
    root = workspace.root
    whole, split, to_fsdp, to_ddp = (root / name for name in ("ddp", "fsdp", "to_fsdp", "to_ddp"))
    resume = "train.resume_training_checkpoint_path={}/train/model_epoch_000.pth"
    runs = [
        [f"results_dir={whole}"],
        [f"results_dir={split}", FSDP],
        [f"results_dir={to_fsdp}", FSDP, resume.format(whole)],
        [f"results_dir={to_ddp}", resume.format(split)],
    ]
    run_ranks(train_on_rank, workspace.spec_file(), runs, timeout=240)
    assert_equal_kpis(split / "train", whole / "train", abs=1e-4)
    first, last = "train/model_epoch_000.pth", "train/model_epoch_001.pth"
    assert_equal_checkpoints(split / first, whole / first, atol=1e-4)
    for other in (split, to_fsdp, to_ddp):
        assert_equal_checkpoints(other / last, whole / last, atol=1e-4)


def held_on_rank(context: Context, spec: Path, folder: Path) -> None:
    """What a rank holds of the weights, their average and their moments, as a share of all."""
    from rtdetr_slurm.engine.detector import new_detector
    from rtdetr_slurm.engine.losses import build_criterion
    from rtdetr_slurm.engine.training.objective import detection_objective
    from rtdetr_slurm.engine.training.parallel import local

    session = session_of(load_spec(spec, [*EVERY, FSDP], action="train"), context)
    model = new_detector(session)
    whole = sum(one.numel() for one in model.parameters())
    criterion = build_criterion(session.experiment.model)
    objective = detection_objective(session, model, criterion, {})
    built = state.build_state(session, model, objective, 0)
    assert built.ema is not None
    shares = [
        sum(local(one).numel() for one in module.parameters()) / whole
        for module in (built.model, built.ema.module)
    ]
    torch.save(shares, folder / f"{context.rank}.pth")


def test_each_rank_holds_a_share(workspace: Workspace, tmp_path: Path) -> None:
    run_ranks(held_on_rank, workspace.spec_file(), tmp_path)
    one, two = (torch.load(tmp_path / f"{rank}.pth") for rank in (0, 1))
    for ours, theirs in zip(one, two, strict=True):
        assert ours + theirs == pytest.approx(1)
        assert 0.45 < ours < 0.6


FAMILIES = (
    "resnet_18",
    "resnet_18_vd",
    "convnext_tiny",
    "convnextv2_atto",
    "efficientvit_b0",
    "efficientvit_l0",
    "edgenext_x_small",
    "fan_tiny",
)


def backbones_on_rank(context: Context) -> None:
    """A detector of each family computes in parts what it computes in one piece."""
    for name in FAMILIES:
        model = small_model(backbone=name).eval()
        pixels = images(height=64, width=64)
        with torch.no_grad():
            expected = model(pixels)
            split(model, context)
            assert all(isinstance(one, DTensor) for one in model.parameters())
            found = model(pixels)
        for key in ("pred_logits", "pred_boxes"):
            torch.testing.assert_close(found[key], expected[key], msg=f"{name} {key}")


def test_backbones_of_every_family() -> None:
    run_ranks(backbones_on_rank, timeout=240)
