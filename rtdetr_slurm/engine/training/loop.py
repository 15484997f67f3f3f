"""The training loop. Read `train_epochs` first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from rtdetr_slurm.contract import FailureClass, Kpi
from rtdetr_slurm.engine.datasets.colours import distort
from rtdetr_slurm.engine.datasets.mixup import mix_up
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.evaluation import (
    Scores,
    evaluate_detector,
    predictor,
    remove_metrics,
    write_metrics,
)
from rtdetr_slurm.engine.process.distributed import (
    average_over_ranks,
    barrier,
    spread_over_ranks,
    sum_over_ranks,
)
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.recipe import recipe_of
from rtdetr_slurm.engine.training.checkpoint import (
    interrupted_path,
    keep_epoch,
    remove_interrupted,
    save_checkpoint,
)
from rtdetr_slurm.engine.training.parallel import copies
from rtdetr_slurm.engine.training.report import (
    not_finite,
    report_epoch,
    report_training,
    write_scalars,
)
from rtdetr_slurm.engine.training.schedule import lr_factor, set_learning_rate
from rtdetr_slurm.engine.training.snapshot import capture
from rtdetr_slurm.engine.training.state import Training, TrainingState
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.runs.progress import shown_epoch
from rtdetr_slurm.vision.preprocess import to_unit_range
from rtdetr_slurm.vision.samples import Batch

MAX_WEIGHT_SPREAD = 1e-2
"""Above this the ranks no longer train one detector; equal processors stay at 0."""


def train_epochs(training: Training) -> dict[str, float]:
    """All epochs from where the state stands.

    Returns:
        The KPIs of the last epoch on rank 0; without the validation ones elsewhere.

    Raises:
        Interrupted: asked to stop; the state is in a checkpoint of its own.
        ActionError: a loss that is not finite, an image that cannot be decoded, no space left.
    """
    kpi: dict[str, float] = {}
    num_epochs = training.session.experiment.train.num_epochs
    for epoch in range(training.state.position.epoch, num_epochs):
        kpi = train_epoch(training, epoch)
    return kpi


def train_epoch(training: Training, epoch: int) -> dict[str, float]:
    """One epoch, or what is left of it: steps, checkpoint, validation, status line.

    The checkpoint is written before the validation, which may fail, and gets its name after it.
    """
    session, position = training.session, training.state.position
    cfg = session.experiment.train
    began, first_step = time.monotonic(), position.step
    position.epoch = epoch
    steps = training.data.sampler.steps_per_epoch
    session.phases.enter(Phase.OTHER, epoch=epoch)
    with session.phases.during(Phase.STEPPING, step=position.step_in_epoch, steps=steps):
        train_steps(training)
    per_step = (time.monotonic() - began) / max(position.step - first_step, 1)
    session.record_bad_images()

    train_loss = torch.tensor(position.loss_sum / steps)
    train_loss = train_loss.to(session.context.device)
    average_over_ranks([train_loss])
    kpi = {Kpi.TRAIN_LOSS: train_loss.item(), **training.costs}
    last = epoch + 1 == cfg.num_epochs
    saved: Path | None = None
    scores: Scores | None = None
    if (epoch + 1) % cfg.checkpoint_interval == 0 or last:
        saved = save_state(training)
    if training.validation is not None and ((epoch + 1) % cfg.validation_interval == 0 or last):
        scores = validate(training, epoch)
        kpi |= {} if scores is None else validation_kpi(scores)
    else:
        remove_metrics(session, epoch)
    if (score := kpi.get(Kpi.VAL_MAP)) is not None:
        session.numbers["best"] = max(score, session.numbers.get("best") or score)
    training.progress.end_epoch()
    report_epoch(training, kpi, time.monotonic() - began, per_step)
    if scores is not None or last:
        report_training(training, scores)
    if saved is not None and session.context.is_main:
        keep_epoch(saved, epoch)
    position.step_in_epoch, position.loss_sum = 0, 0.0
    return kpi


def train_steps(training: Training) -> None:
    """The optimizer steps of an epoch, from where it stands.

    Raises:
        Interrupted: at a step boundary that all ranks agree on, after the state was written.
    """
    session, state, position = training.session, training.state, training.state.position
    cfg, device = session.experiment.train, session.context.device
    augmentation, recipe = session.experiment.dataset.augmentation, recipe_of(session.experiment)
    sampler = training.data.sampler
    sampler.set_position(position.epoch, position.step_in_epoch)
    state.training_mode()
    for batch in session.phases.batches(training.data.loader) if len(sampler) else ():
        _check_readable(session, batch)
        batch = batch.to(device)
        images = distort(to_unit_range(batch.pixels), batch.colours)
        if position.epoch in recipe.dense:
            images, batch = mix_up(images, batch, state.seed, position.epoch)
        scales = augmentation.multi_scales if recipe.resizes(position.epoch) else []
        images = multi_scale(images, scales, state.seed, position.step)
        shared = torch.tensor([batch.num_boxes, session.stop.requested], dtype=torch.float32)
        shared = sum_over_ranks(shared.to(device))
        num_boxes = (shared[0] / session.context.world_size).clamp(min=1)

        loss, terms = state.objective(images, batch.targets(), num_boxes)
        values = HostCopy(torch.stack([shared[1], loss, *terms.values()]))

        factor = lr_factor(
            cfg.optim, recipe, position.epoch, position.step, sampler.steps_per_epoch
        )
        rate = set_learning_rate(state.optimizer, factor)
        backward(state, loss)
        stop, value, *rest = values.read()
        read_terms = dict(zip(terms, rest, strict=True))
        if not math.isfinite(value):
            raise ActionError(not_finite(training, batch, read_terms))
        update(state, cfg.clip_grad_norm)
        state.average_norms()
        position.step += 1
        position.step_in_epoch += 1
        position.loss_sum += value
        if state.ema is not None and position.step % cfg.ema.every_n_steps == 0:
            state.ema.update()
        session.phases.stepped()

        where = f"epoch {shown_epoch(position.epoch, cfg.num_epochs)}"
        where += f" step {position.step_in_epoch}/{sampler.steps_per_epoch}"
        training.progress.update(where, training.steps_left, value, rate)
        session.numbers.update(training.progress.numbers)
        write_scalars(training, value, rate, read_terms)
        if stop:
            interrupt(training)


def backward(state: TrainingState, loss: Tensor) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    (loss if state.scaler is None else state.scaler.scale(loss)).backward()


def update(state: TrainingState, max_norm: float) -> None:
    """Clip the gradients to a total norm of `max_norm` (0: leave them) and step."""
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(state.objective.parameters(), max_norm)
    if state.scaler is None:
        state.optimizer.step()
    else:
        state.scaler.step(state.optimizer)
        state.scaler.update()


def validate(training: Training, epoch: int) -> Scores | None:
    """Score the present weights, and write metrics.json; the scores on rank 0, None elsewhere."""
    assert training.validation is not None
    session, state = training.session, training.state
    model = state.scored_model(session)
    try:
        scores = evaluate_detector(
            session, predictor(model), training.validation, training.criterion
        )
    except Interrupted:
        interrupt(training)
    if scores is not None:
        loss = scores.loss if math.isfinite(scores.loss) else None
        write_metrics(session, scores, {"epoch": epoch, Kpi.VAL_LOSS: loss}, epoch)
    return scores


def validation_kpi(scores: Scores) -> dict[str, float]:
    return {
        Kpi.VAL_MAP: scores.summary["mAP"],
        Kpi.VAL_MAP50: scores.summary["mAP50"],
        Kpi.VAL_LOSS: scores.loss,
    }


def save_state(training: Training) -> Path:
    """Write the state of this moment, which supersedes what earlier interruptions have left; called
    by all ranks at the same step."""
    session, position = training.session, training.state.position
    with session.phases.during(Phase.SAVING):
        content = capture(training.state, session, training.data.table.classes)
        check_equal_weights(training)
        path = interrupted_path(session.results_dir, position.epoch, position.step_in_epoch)
        if session.context.is_main:
            session.check_latest()
            save_checkpoint(path, content, session.key)
            remove_interrupted(session.results_dir, but=path)
        barrier()  # who waits for rank 0 is saving, too, and makes no step meanwhile
    return path


def check_equal_weights(training: Training) -> None:
    """Data-parallel training is sound only while all ranks hold the same weights: make sure. Of
    what is split (fsdp) there are no two copies that could differ.

    Raises:
        ActionError: they have drifted apart by more than rounding on unlike processors explains.
    """
    context = training.session.context
    held = copies(training.state.objective)
    if context.world_size == 1 or not held:
        return
    spread = spread_over_ranks(held)
    if not spread <= MAX_WEIGHT_SPREAD:
        raise ActionError(
            f"the weights of the {context.world_size} ranks differ by up to {spread:g}; no "
            "checkpoint is written. This is a fault of the network, the memory or the driver of "
            "a node: go on from the previous checkpoint on other nodes",
            FailureClass.INFRA,
        )
    training.session.say(f"{context.world_size} ranks hold equal weights (spread {spread:g})")


def interrupt(training: Training) -> NoReturn:
    """Write the state of this moment and end; called by all ranks at the same step.

    Raises:
        Interrupted: always.
    """
    save_state(training)
    raise Interrupted


def multi_scale(images: Tensor, scales: Sequence[int | list[int]], seed: int, step: int) -> Tensor:
    """Resize a batch [B, 3, H, W] to the size drawn for this step, the same on all ranks."""
    if scales:
        drawn = scales[mix_seed(seed, step) % len(scales)]
        height, width = (drawn, drawn) if isinstance(drawn, int) else drawn
        if images.shape[-2:] != (height, width):
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


class HostCopy:
    """A small tensor on its way to the host, without making the host wait for the device.

    By the time it is read, the matcher has waited for the device anyway, and little more than the
    loss was queued in between.
    """

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._values = values.detach()
        if values.is_cuda:
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            self._values.copy_(values.detach(), non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._values.tolist()
        return values


def _check_readable(session: Session, batch: Batch) -> None:
    session.meet_bad_images(batch.bad, skip=session.skip_bad_images)
    if not batch.pixels.numel():
        raise ActionError("not one training image can be decoded")
