"""What people get to see: lines on the screen and in status.json, TensorBoard's points,
metrics.json, annotated.jpg."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import ANNOTATED_IMAGE, METRICS_JSON, METRICS_VERSION, Status
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.datasets.batches import Batch
from rtdetr_slurm.engine.datasets.images import BadImage, load_image
from rtdetr_slurm.engine.draw import Drawn, draw_sheet
from rtdetr_slurm.engine.failures import writing_error
from rtdetr_slurm.engine.postprocess import postprocess
from rtdetr_slurm.engine.preprocess import preprocess
from rtdetr_slurm.engine.sources import EvaluationData, workers
from rtdetr_slurm.files import write_atomic

if TYPE_CHECKING:
    from rtdetr_slurm.engine.train import Training

PICTURES = 8
"""How many images annotated.jpg shows at most."""
SCALAR_INTERVAL = 10
"""Steps between two points of a TensorBoard curve."""


def write_metrics(action: Action, classes: Mapping[int, str], content: Mapping[str, Any]) -> None:
    """Replace metrics.json.

    Raises:
        ActionError: it cannot be written.
    """
    record = {
        "schema_version": METRICS_VERSION,
        "version": __version__,
        "action": action.name,
        "classes": {str(i): name for i, name in classes.items()},
        **content,
    }
    path = action.results_dir / METRICS_JSON
    try:
        write_atomic(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise writing_error(error, path) from None


def write_picture(action: Action, model: nn.Module, data: EvaluationData) -> None:
    """Draw the model's detections on a few images, on rank 0.

    Raises:
        ActionError: the picture cannot be written.
    """
    if not action.context.is_main:
        return
    sheet = io.BytesIO()
    draw_sheet(_pictures(model, data, action.context.device), data.table.classes).save(
        sheet, "JPEG", quality=92
    )
    path = action.results_dir / ANNOTATED_IMAGE
    try:
        write_atomic(path, sheet.getvalue())
    except OSError as error:
        raise writing_error(error, path) from None


def describe(run: Training) -> None:
    """Say what is about to be trained on what, and what differs from the letter of the spec."""
    action, data, table = run.action, run.data, run.data.table
    cfg, context = action.experiment, action.context
    trained = sum(p.numel() for p in run.state.model.parameters() if p.requires_grad) / 1e6
    action.say(
        f"{cfg.model.backbone}, {trained:.1f} M trainable parameters, on {context.world_size} x "
        f"{context.device.type}, {cfg.train.precision}"
    )
    scored = "none" if run.validation is None else f"{len(run.validation.table)} images"
    action.say(
        f"{len(table)} training images with {len(table.labels)} boxes, validation: {scored}; "
        f"{data.order.steps_per_epoch} steps per epoch"
    )
    crowds = int(table.crowds.sum())
    flat = int(((table.boxes[:, 2:] <= 0).any(axis=1) & ~table.crowds).sum())
    if crowds or flat:
        action.say(f"not trained on: {crowds} crowd regions, {flat} boxes without extent")
    if workers(action) < cfg.dataset.workers:
        action.say(
            f"{workers(action)} loading processes per rank, not {cfg.dataset.workers} "
            "(dataset.workers): that is how many CPU cores each rank has"
        )


def report_epoch(run: Training, kpi: Mapping[str, float], seconds: float, per_step: float) -> None:
    """Tell of a finished epoch: a line on the screen, one in status.json, TensorBoard points."""
    action, cfg = run.action, run.action.experiment.train
    if not action.context.is_main:
        return
    epoch = run.state.position.epoch
    per_epoch = run.data.order.steps_per_epoch
    remaining = timedelta(seconds=seconds * (cfg.num_epochs - epoch - 1))
    action.record(
        Status.RUNNING,
        f"epoch {epoch} finished",
        kpi=kpi,
        epoch=epoch,
        step=run.state.position.step,
        max_epoch=cfg.num_epochs - 1,
        max_step=per_epoch * cfg.num_epochs,
        time_per_epoch=str(timedelta(seconds=seconds)),
        time_per_step=str(timedelta(seconds=per_step)),
        eta=str(remaining),
    )
    values = "  ".join(f"{name} {value:.4f}" for name, value in kpi.items())
    action.say(f"epoch {epoch + 1}/{cfg.num_epochs}  {values}  {seconds:.1f} s")
    if run.scalars is not None:
        run.scalars.write(run.state.position.step, {f"epoch/{k}": v for k, v in kpi.items()})


def write_scalars(run: Training, loss: float, rate: float, terms: Mapping[str, float]) -> None:
    step = run.state.position.step
    if run.scalars is None or step % SCALAR_INTERVAL:
        return
    speed = run.progress.images_per_step / max(run.progress.seconds_per_step, 1e-9)
    values = {"train/loss": loss, "train/lr": rate, "train/images_per_second": speed}
    run.scalars.write(step, values | {f"train/{name}": value for name, value in terms.items()})


def not_finite(run: Training, batch: Batch, terms: Mapping[str, float]) -> str:
    """The message for a loss that is NaN or infinite."""
    table, position = run.data.table, run.state.position
    broken = {name: value for name, value in terms.items() if not math.isfinite(value)} or terms
    values = ", ".join(f"{name}={value:g}" for name, value in list(broken.items())[:8])
    images = ", ".join(table.describe(image) for image in batch.images)
    return (
        f"the loss is not finite at step {position.step} (epoch {position.epoch}) on rank "
        f"{run.action.context.rank}: {values}. Images: {images}. No weights were changed by this "
        "step; lower train.optim.lr, set train.clip_grad_norm, use train.precision bf16 or fp32, "
        "or look at these images' boxes"
    )


@torch.no_grad()
def _pictures(
    model: nn.Module, data: EvaluationData, device: torch.device
) -> list[tuple[Any, Sequence[Drawn]]]:
    """Images spread evenly over the set, each with its detections; undecodable ones left out."""
    model.eval()
    count = min(PICTURES, len(data.table))
    pictures: list[tuple[Any, Sequence[Drawn]]] = []
    for number in range(count):
        pixels = load_image(data.table.path(number * len(data.table) // count))
        if isinstance(pixels, BadImage):
            continue
        outputs = model(preprocess(pixels, data.size).to(device))
        size = torch.tensor([[pixels.shape[1], pixels.shape[0]]])
        found = postprocess(
            outputs["pred_logits"].cpu(), outputs["pred_boxes"].cpu(), size, data.num_select
        )
        rows = zip(
            found.boxes[0].tolist(), found.labels[0].tolist(), found.scores[0].tolist(), strict=True
        )
        pictures.append((pixels, [Drawn(tuple(b), label, score) for b, label, score in rows]))
    return pictures
