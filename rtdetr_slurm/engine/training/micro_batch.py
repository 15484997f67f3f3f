"""`engine.batch: auto`: the images of a step in micro-batches of the largest size that fits.

What fits is tried out, by training steps that change nothing, before the first one that does. It is
kept in the results folder, so that every later start of the training has the same micro-batches on
GPUs of the same kind.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypedDict

import numpy as np
import torch

from rtdetr_slurm.contract import MICRO_BATCH_JSON, MICRO_BATCH_VERSION, FailureClass
from rtdetr_slurm.engine.datasets.sources import TrainingData
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.process.distributed import gather_objects, on_main, sum_over_ranks
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.ema import Ema
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.optim import build_optimizer, freeze
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.records import read_record
from rtdetr_slurm.spec.sizes import training_sizes
from rtdetr_slurm.vision.samples import Target
from rtdetr_slurm.vision.table import Table

HEADROOM = 0.9
"""Of a GPU's memory, what a step that is tried out may take: a training also has the buffers of
what the ranks exchange, and its memory falls into pieces as sizes change."""
MOST_MIXED = 8
"""An image of DEIM's dense epochs may have the boxes of so many."""


class Found(TypedDict):
    """Under what conditions a micro-batch of which size was the largest that fits."""

    conditions: dict[str, Any]
    size: int


class Record(TypedDict):
    """micro_batch.json."""

    schema_version: int
    found: list[Found]


def largest_part(images: int, fits: Callable[[int], bool], least: int = 1) -> int | None:
    """The largest number that divides `images` and fits, tried from the largest on; None: not even
    `least` images do."""
    divisors = (size for size in range(images, least - 1, -1) if images % size == 0)
    return next((size for size in divisors if fits(size)), None)


def choose_micro_batch(
    session: Session, data: TrainingData, model: RTDETR, objective: DetectionObjective
) -> None:
    """Set the parts of a step as `engine.batch` wants them; every rank must call it, with what is
    not yet distributed.

    Raises:
        ActionError: not even one image fits.
    """
    context, images = session.context, data.sampler.batch_size
    if session.experiment.engine.batch == "fixed":
        return
    if context.device.type != "cuda":
        session.say("engine.batch auto: on CPU batches are as the spec says")
        return
    height, width = max(training_sizes(session.experiment), key=lambda size: size[0] * size[1])
    boxes = most_boxes(data.table, dense=session.experiment.engine.recipe == "deim")

    def fits(size: int) -> bool:
        batch = worst_batch(size, height, width, boxes, context.device)
        return fits_in_memory(lambda: try_step(session, model, objective, *batch), context.device)

    size = find_size(session, images, conditions_of(session, (height, width), boxes), fits)
    data.sampler.parts = images // size
    session.say(
        f"engine.batch auto: micro-batches of {size} of the {images} images of a step on each GPU"
    )


def find_size(
    session: Session, images: int, conditions: dict[str, Any], fits: Callable[[int], bool]
) -> int:
    """The size that was found under these conditions before, else the largest that fits on every
    rank, which is recorded.

    Raises:
        ActionError: there is none.
    """
    path = session.results_dir / MICRO_BATCH_JSON
    record = on_main(lambda: read_record(Record, path, MICRO_BATCH_VERSION))
    known = [] if record is None else record["found"]
    for one in known:
        if one["conditions"] == conditions:
            return one["size"]

    def fits_everywhere(size: int) -> bool:
        fails = torch.tensor(float(not fits(size)), device=session.context.device)
        return not sum_over_ranks(fails).item()

    mixes = session.experiment.engine.recipe == "deim"  # images of a micro-batch with one another
    least = 2 if mixes else 1
    size = largest_part(images, fits_everywhere, least)
    if size is None:
        shown, gpus = " x ".join(map(str, conditions["image_size"])), conditions["gpus"]
        raise ActionError(
            f"a micro-batch of {least}, of {shown} pixels, does not fit {', '.join(gpus)}; "
            "train at a smaller size, with train.precision bf16, or with a smaller model",
            FailureClass.OOM_GPU,
        )
    found = [*known, Found(conditions=conditions, size=size)]
    text = json.dumps(Record(schema_version=MICRO_BATCH_VERSION, found=found), indent=1)
    if session.context.is_main:
        session.write(MICRO_BATCH_JSON, text + "\n")
    return size


def conditions_of(session: Session, image_size: tuple[int, int], boxes: int) -> dict[str, Any]:
    """All that a step's memory depends on but for the size of a micro-batch, as JSON has it."""
    device, spec = session.context.device, session.resolved
    properties = torch.cuda.get_device_properties(device)
    memory = round(properties.total_memory / 2**30)
    gathered = gather_objects(f"{properties.name}, {memory} GiB")
    gpus = on_main(lambda: sorted(set(gathered)))
    train = session.experiment.train
    conditions = {
        "gpus": gpus,
        "ranks": session.context.world_size,
        "image_size": image_size,
        "boxes": boxes,
        "images": session.experiment.images_per_step,
        "num_classes": session.experiment.dataset.num_classes,
        "precision": train.precision,
        "activation_checkpoint": train.activation_checkpoint,
        "ema": train.enable_ema and not train.ema.cpu_offload,
        "optimizer": train.optim.optimizer,
        "freeze": train.freeze,
        "model": spec["model"],
        "distill": spec.get("distill"),
        "recipe": session.experiment.engine.recipe,
        "compile": session.experiment.engine.compile,
        "torch": torch.__version__,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(conditions))
    return as_read


def most_boxes(table: Table, *, dense: bool) -> int:
    """How many boxes an image of a training may have."""
    most = int(np.diff(table.starts).max(initial=1))
    return most * MOST_MIXED if dense else most


def worst_batch(
    size: int, height: int, width: int, boxes: int, device: torch.device
) -> tuple[torch.Tensor, list[Target]]:
    """Images of noise, each with as many boxes as one may have."""
    pixels = torch.rand(size, 3, height, width, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(boxes, dtype=torch.int64, device=device)
    places = torch.rand(boxes, 4, device=device) * 0.4 + 0.1
    return pixels, [Target(labels=labels, boxes=places) for _ in range(size)]


def fits_in_memory(step: Callable[[], None], device: torch.device) -> bool:
    """Whether a step runs within HEADROOM of the GPU's memory; what it had taken is free again."""
    torch.cuda.set_per_process_memory_fraction(HEADROOM, device)
    fits = False
    with suppress(torch.OutOfMemoryError):
        step()
        fits = True
    torch.cuda.set_per_process_memory_fraction(1.0, device)
    gc.collect()
    torch.cuda.empty_cache()
    return fits


def try_step(
    session: Session,
    model: RTDETR,
    objective: DetectionObjective,
    pixels: torch.Tensor,
    targets: list[Target],
) -> None:
    """A training step that changes nothing: no weight, no running statistic, no random number."""
    cfg, device = session.experiment.train, session.context.device
    buffers = [(one, one.clone()) for one in objective.buffers()]
    frozen_norms = freeze(model, cfg.freeze)
    optimizer = build_optimizer(model, cfg.optim, objective.auxiliary)
    ema = Ema(model, cfg.ema.decay) if cfg.enable_ema and not cfg.ema.cpu_offload else None
    boxes = torch.tensor(float(sum(len(one["labels"]) for one in targets)), device=device)
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            objective.train()
            for norm in frozen_norms:
                norm.eval()
            loss, _ = objective(pixels, targets, boxes.clamp(min=1))
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = 0.0  # its moments take their memory, and no weight moves
                torch._foreach_zero_([p.grad for p in group["params"] if p.grad is not None])
            optimizer.step()
    finally:
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        del ema
