"""What people get to see of a training: lines on the screen and in status.json, the report, and
what is logged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta

from rtdetr_slurm.contract import Status
from rtdetr_slurm.engine.datasets.sources import workers
from rtdetr_slurm.engine.evaluation import Scores, write_report
from rtdetr_slurm.engine.training.accumulation import has_batch_statistics
from rtdetr_slurm.engine.training.precision import training_precision
from rtdetr_slurm.engine.training.state import Training
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoints import kpi_by_epoch
from rtdetr_slurm.runs.progress import shown_epoch
from rtdetr_slurm.vision.samples import Batch

SCALAR_INTERVAL = 10
"""Steps between two points of a curve."""


def describe(training: Training) -> None:
    """Say what is about to be trained on what, and what differs from the letter of the spec."""
    session, data, table = training.session, training.data, training.data.table
    cfg, context = session.experiment, session.context
    trained = sum(p.numel() for p in training.state.model.parameters() if p.requires_grad) / 1e6
    precision = training_precision(cfg.train, context.device)
    session.say(
        f"{cfg.model.backbone}, {trained:.1f} M trainable parameters, on {context.world_size} x "
        f"{context.device.type}, {precision}"
    )
    if cfg.train.distributed_strategy == "fsdp":
        session.say(
            "each rank holds a part of the model (fsdp), which computes in fp16 on CUDA and in "
            f"fp32 on CPU, whatever train.precision says: {precision} here"
        )
    validation = training.validation
    scored = "none" if validation is None else f"{len(validation.data.table)} images"
    session.say(
        f"{len(table)} training images with {len(table.labels)} annotated boxes, validation: "
        f"{scored}; {data.sampler.steps_per_epoch} steps per epoch"
    )
    if (parts := data.sampler.parts) > 1:
        session.say(
            f"a step adds up the gradients of {parts} micro-batches of "
            f"{data.sampler.batch_size // parts} images per rank"
        )
        training.state.training_mode()
        if has_batch_statistics(training.state.model):
            session.say(
                "batch norms take the statistics of each micro-batch, so a step is not quite that "
                "of one large batch"
            )
    steps = cfg.train.num_epochs * data.sampler.steps_per_epoch
    if cfg.train.checkpoint_interval_unit == "step" and cfg.train.checkpoint_interval > steps:
        session.warn(
            f"train.checkpoint_interval: {cfg.train.checkpoint_interval} steps are more than all "
            f"{steps} of the training; only the last epoch is saved"
        )
    if workers(session) < cfg.dataset.workers:
        session.say(
            f"{workers(session)} loading processes per rank, not {cfg.dataset.workers} "
            "(dataset.workers): that is how many CPU cores each rank has"
        )


def report_epoch(
    training: Training, kpi: Mapping[str, float], seconds: float, per_step: float
) -> None:
    """Tell of a finished epoch: a line on the screen, one in status.json, points of curves."""
    session, cfg = training.session, training.session.experiment.train
    if not session.context.is_main:
        return
    position = training.state.position
    shown = shown_epoch(position.epoch, cfg.num_epochs)
    session.record(
        Status.RUNNING,
        f"epoch {shown} finished",
        kpi=kpi,
        epoch=position.epoch,
        step=position.step,
        max_epoch=cfg.num_epochs - 1,
        max_step=position.step + training.steps_left,
        time_per_epoch=_milliseconds(seconds),
        time_per_step=_milliseconds(per_step),
        eta=str(training.progress.remaining(training.steps_left)),
    )
    values = "  ".join(f"{name} {value:.4f}" for name, value in kpi.items())
    session.say(f"epoch {shown}  {values}  {seconds:.1f} s")
    training.loggers.write(position.step, {f"epoch/{k}": v for k, v in kpi.items()})


def report_training(training: Training, scores: Scores | None) -> None:
    """Replace report.html, on rank 0, with the curves of all epochs that status.json tells of.

    Args:
        scores: of the last epoch; None where it was not scored.

    Raises:
        ActionError: it cannot be written.
    """
    session, table = training.session, training.data.table
    if not session.context.is_main:
        return
    history: Mapping[str, Mapping[int, float]] = {}
    try:
        history = kpi_by_epoch(session.results_dir)
    except RequestError as error:
        session.warn(f"report.html has no curves of the training: {error}")
    epochs = session.experiment.train.num_epochs
    facts = {
        "epoch": shown_epoch(training.state.position.epoch, epochs),
        "backbone": session.experiment.model.backbone,
        "training images": len(table),
        "training boxes": len(table.labels),
    }
    if scores is not None:
        scored = scores.assessment.table
        facts |= {"validation images": len(scored), "validation boxes": len(scored.labels)}
    write_report(session, scores, facts, history)


def write_scalars(training: Training, loss: float, rate: float, terms: Mapping[str, float]) -> None:
    step = training.state.position.step
    if step % SCALAR_INTERVAL:
        return
    speed = training.progress.images_per_step / max(training.progress.seconds_per_step, 1e-9)
    values = {"train/loss": loss, "train/lr": rate, "train/images_per_second": speed}
    training.loggers.write(step, values | {f"train/{name}": value for name, value in terms.items()})


def not_finite(training: Training, batches: Sequence[Batch], terms: Mapping[str, float]) -> str:
    """The message for a loss that is NaN or infinite."""
    table, position = training.data.table, training.state.position
    shown = shown_epoch(position.epoch, training.session.experiment.train.num_epochs)
    broken = {name: value for name, value in terms.items() if not math.isfinite(value)} or terms
    values = ", ".join(f"{name}={value:g}" for name, value in list(broken.items())[:8])
    images = ", ".join(table.describe(image) for batch in batches for image in batch.images)
    return (
        f"the loss is not finite at step {position.step} (epoch {shown}) on rank "
        f"{training.session.context.rank}: {values}. Images: {images}. No weights were changed by "
        "this step; lower train.optim.lr, set train.clip_grad_norm, use train.precision bf16 or "
        "fp32, or look at these images' boxes"
    )


def _milliseconds(seconds: float) -> str:
    """`h:mm:ss.mmm`."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    return f"{timedelta(seconds=whole)}.{rest:03d}"
