"""Options of the training loop on two ranks, which have to come to the same decisions."""

from __future__ import annotations

from contextlib import redirect_stdout
from pathlib import Path

import torch
from accumulation_support import batch, detection, state_of, step_in_parts
from engine_support import Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks
from torch.nn.parallel import DistributedDataParallel

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.micro_batch import find_size
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def gradients_of_rank(context: Context, folder: Path) -> None:
    """Of its half of a batch, in one and in two parts; each rank has three boxes of the six."""
    pixels, wanted = batch()
    mine = slice(2 * context.rank, 2 * context.rank + 2)
    for parts in (1, 2):
        objective = detection()
        state = state_of(objective, DistributedDataParallel(objective))
        _, found = step_in_parts(state, parts, pixels[mine], wanted[mine], 3.0)
        torch.save(found, folder / f"{context.rank}-{parts}.pth")


def test_two_ranks_in_parts_have_the_gradients_of_one_batch(tmp_path: Path) -> None:
    run_ranks(gradients_of_rank, tmp_path)
    pixels, wanted = batch()
    _, expected = step_in_parts(state_of(detection()), 1, pixels, wanted, 3.0)
    for name in ("0-1", "0-2", "1-1", "1-2"):
        found = torch.load(tmp_path / f"{name}.pth", weights_only=True)
        for key, grad in expected.items():
            # The sum over both ranks' boxes, divided by 3, is twice the mean over the ranks.
            torch.testing.assert_close(2 * found[key], grad, rtol=1e-8, atol=1e-10, msg=key)


def train_on_rank(context: Context, spec: Path, overrides: list[str], said: Path) -> None:
    session = session_of(load_spec(spec, overrides, action="train"), context)
    with (said / f"rank{context.rank}").open("w") as output, redirect_stdout(output):
        train(session)
        size = find_size(session, 4, {"gpus": "two"}, lambda size: size <= 4 - 2 * context.rank)
    assert size == 2


def test_both_end_early_and_keep_the_best(workspace: Workspace, tmp_path: Path) -> None:
    """Rank 0 alone has the scores. What fits on both is what fits on the smaller one."""
    overrides = [
        *("train.num_gpus=2", "train.gpu_ids=[0,1]", "dataset.batch_size=1", "train.num_epochs=9"),
        *("engine.accumulate=2", "train.checkpoint_interval=5", "train.checkpointer.mode=max"),
        *("engine.early_stopping.patience=2", "engine.early_stopping.min_delta=1000"),
        *("train.checkpointer.enable_topk=true", "train.checkpointer.monitor=val_loss"),
    ]
    run_ranks(train_on_rank, workspace.spec_file(), overrides, tmp_path)
    folder = workspace.results / "train"
    lines = read_status(folder / "status.json")
    assert lines[-1]["message"].startswith("stops early after epoch 3: ")
    losses = {line["epoch"]: line["kpi"]["val_loss"] for line in lines if "epoch" in line}
    assert [*losses] == [0, 1, 2]
    best = max(losses, key=losses.__getitem__)
    names = {path.name for path in folder.glob("*.pth")}
    kept = {f"model_epoch_{epoch:03d}.pth" for epoch in {best, 2}}
    assert names == kept | {f"model_best_{best:03d}.pth"}
    saved = load_checkpoint(folder / "model_epoch_002.pth")
    assert (saved["step"], saved["batch_size"]) == (9, 2)
    assert "2 ranks hold equal weights (spread 0)" in (tmp_path / "rank0").read_text()
