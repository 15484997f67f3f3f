"""A training that goes on with another number of ranks in the middle of its epochs."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_support import StopAt, Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.engine.actions.train import train
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.vision.samples import Batch

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

BATCH = "dataset.batch_size=2"
ALWAYS = ["dataset.val_data_sources=null", "train.checkpoint_interval=1"]
TWO = "train.num_gpus=2"
ELASTIC = "engine.elastic=true"


def recorded(images: list[int]) -> Callable[..., Batch]:
    """`Batch.to` that writes down what is computed on."""
    original = Batch.to

    def to(batch: Batch, device: torch.device) -> Batch:
        images.extend(batch.images)
        return original(batch, device)

    return to


def train_a_while(
    context: Context, spec: Path, overrides: list[str], steps: int | None, seen: Path
) -> None:
    """So many steps, or all; the images go to a file of each rank."""
    images: list[int] = []
    original = Batch.to
    os.environ["RTDETR_RESUME"] = "1"
    session = session_of(load_spec(spec, [*ALWAYS, *overrides], action="train"), context)
    try:
        Batch.to = recorded(images)  # type: ignore[method-assign]
        if steps is None:
            train(session)
        else:
            with pytest.raises(Interrupted):
                train(replace(session, stop=StopAt(steps - 1)))
    finally:
        Batch.to = original  # type: ignore[method-assign]
        del os.environ["RTDETR_RESUME"]
    with seen.open("a") as file:
        file.write(json.dumps(images) + "\n")


def test_every_image_once_whoever_has_it(workspace: Workspace) -> None:
    """Three steps of four images in an epoch of twelve: one on two ranks, two on one rank, of which
    the second epoch's first is one; and the rest on two again."""
    spec, seen = workspace.spec_file(), workspace.root / "seen"
    alone = Context(0, 1, 0, 1, torch.device("cpu"))

    def images() -> list[int]:
        lines = [json.loads(line) for line in seen.read_text().splitlines()]
        seen.unlink()
        return sorted(image for line in lines for image in line)

    run_ranks(train_a_while, spec, [TWO, BATCH], 1, seen)
    with pytest.raises(
        RequestError,
        match=r"the middle of epoch 1, .* with world_size 2; this start has 1\. Use the same, "
        r"resume from a model_epoch checkpoint, or go on with engine\.elastic: true",
    ):
        train_a_while(alone, spec, [BATCH], None, seen)
    with pytest.raises(RequestError, match=r"world_size 2; this .* checkpoint$"):
        # Other steps are wanted, which a new epoch may have and this one may not.
        train_a_while(alone, spec, [ELASTIC, "dataset.batch_size=1"], None, seen)
    train_a_while(
        alone, spec, [ELASTIC, BATCH], 2, seen
    )  # looked at after each step, so it makes two
    assert images() == list(range(12))
    train_a_while(alone, spec, [ELASTIC, BATCH], 1, seen)
    run_ranks(train_a_while, spec, [ELASTIC, BATCH, TWO], None, seen)
    assert images() == list(range(12))

    folder = workspace.results / "train"
    lines = [line for line in read_status(folder / "status.json") if "epoch" in line]
    assert [(line["epoch"], line["step"]) for line in lines] == [(0, 3), (1, 6)]
    content: dict[str, Any] = load_checkpoint(folder / "model_epoch_001.pth")
    assert (content["world_size"], content["batch_size"], len(content["rng"])) == (2, 2, 2)
    assert content["step"] == 6


def test_what_cannot_be_shared(workspace: Workspace) -> None:
    spec, seen = workspace.spec_file(), workspace.root / "seen"
    alone = Context(0, 1, 0, 1, torch.device("cpu"))
    train_a_while(alone, spec, ["dataset.batch_size=3"], 1, seen)

    run_ranks(refused_on_rank, spec)


def refused_on_rank(context: Context, spec: Path) -> None:
    os.environ["RTDETR_RESUME"] = "1"
    overrides = [*ALWAYS, ELASTIC, TWO, "dataset.batch_size=3"]
    session = session_of(load_spec(spec, overrides, action="train"), context)
    with pytest.raises(
        RequestError,
        match=r"engine\.elastic: a step has had 3 images, which 2 ranks cannot share; allowed: a "
        "number of ranks that divides 3",
    ):
        train(session)
