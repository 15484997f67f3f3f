"""The training loop. Read `train_epochs` first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rtdetr_slurm.contract import Kpi, Status
from rtdetr_slurm.engine.datasets.colours import distort
from rtdetr_slurm.engine.datasets.mixup import mix, mixing_share
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.evaluation import (
    Scores,
    evaluate_detector,
    predictor,
    remove_metrics,
    write_metrics,
)
from rtdetr_slurm.engine.process.distributed import average_over_ranks, sum_over_ranks
from rtdetr_slurm.engine.process.phases import Phase
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.recipe import recipe_of
from rtdetr_slurm.engine.training.accumulation import Gradients, by_step
from rtdetr_slurm.engine.training.checkpoint import keep_epoch
from rtdetr_slurm.engine.training.early_stopping import stops_early
from rtdetr_slurm.engine.training.report import (
    not_finite,
    report_epoch,
    report_training,
    write_scalars,
)
from rtdetr_slurm.engine.training.saving import interrupt, is_periodic, is_step_due, save_state
from rtdetr_slurm.engine.training.schedule import lr_factor, set_learning_rate
from rtdetr_slurm.engine.training.state import Training, TrainingState
from rtdetr_slurm.engine.training.topk import is_ranked, keep_best, settle
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.runs.progress import shown_epoch
from rtdetr_slurm.vision.preprocess import to_unit_range
from rtdetr_slurm.vision.samples import Batch


def train_epochs(training: Training) -> dict[str, float]:
    """All epochs from where the state stands, or as many as early stopping allows.

    Returns:
        The KPIs of the last epoch on rank 0; without the validation ones elsewhere.

    Raises:
        Interrupted: asked to stop; the state is in a checkpoint of its own.
        ActionError: a loss that is not finite, an image that cannot be decoded, no space left.
    """
    kpi: dict[str, float] = {}
    num_epochs = training.session.experiment.train.num_epochs
    if training.session.context.is_main:
        settle(training)
    for epoch in range(training.state.position.epoch, num_epochs):
        if reason := stops_early(training.session, training.state):
            training.session.say(reason)
            training.session.record(Status.RUNNING, reason)
            break
        kpi = train_epoch(training, epoch)
    return kpi


def train_epoch(training: Training, epoch: int) -> dict[str, float]:
    """One epoch, or what is left of it: steps, checkpoint, validation, status line.

    A checkpoint that is due whatever the scores are is written before the validation, which may
    fail, and gets its name after it.
    """
    session, position = training.session, training.state.position
    began, first_step = time.monotonic(), position.step
    position.epoch = epoch
    steps = training.data.sampler.steps_per_epoch
    session.phases.enter(Phase.OTHER, epoch=epoch)
    with session.phases.during(Phase.STEPPING, step=position.step_in_epoch, steps=steps):
        train_steps(training)
    per_step = (time.monotonic() - began) / max(position.step - first_step, 1)
    session.record_bad_images()

    kpi = {Kpi.TRAIN_LOSS: mean_loss(training, steps), **training.costs}
    last = epoch + 1 == session.experiment.train.num_epochs
    saved = save_state(training) if is_periodic(training, epoch) or last else None
    scores = validate_if_due(training, epoch, last=last)
    kpi |= {} if scores is None else validation_kpi(scores)
    training.state.remember(epoch, kpi)
    if saved is None and (is_ranked(training, epoch) or stops_early(session, training.state)):
        saved = save_state(training)
    training.progress.end_epoch()
    report_epoch(training, kpi, time.monotonic() - began, per_step)
    if scores is not None or last:
        report_training(training, scores)
    if saved is not None and session.context.is_main:
        keep_epoch(saved, epoch)
        keep_best(training, epoch)
    position.step_in_epoch, position.loss_sum = 0, 0.0
    return kpi


def train_steps(training: Training) -> None:
    """The optimizer steps of an epoch, from where it stands.

    Raises:
        Interrupted: at a step boundary that all ranks agree on, after the state was written.
    """
    session, state, position = training.session, training.state, training.state.position
    cfg, recipe = session.experiment.train, recipe_of(session.experiment)
    sampler = training.data.sampler
    sampler.set_position(position.epoch, position.step_in_epoch)
    state.training_mode()
    loader = session.phases.batches(training.data.loader) if len(sampler) else ()
    for batches in by_step(loader, sampler.parts):
        gradients = compute_gradients(training, batches)
        factor = lr_factor(
            cfg.optim, recipe, position.epoch, position.step, sampler.steps_per_epoch
        )
        rate = set_learning_rate(state.optimizer, factor)
        stop, loss = gradients.read()
        if not math.isfinite(loss.value):
            raise ActionError(not_finite(training, batches, loss.terms))
        update(state, cfg.clip_grad_norm)
        state.average_norms()
        position.step += 1
        position.step_in_epoch += 1
        position.loss_sum += loss.value
        if state.ema is not None and position.step % cfg.ema.every_n_steps == 0:
            state.ema.update()
        session.phases.stepped()

        where = f"epoch {shown_epoch(position.epoch, cfg.num_epochs)}"
        where += f" step {position.step_in_epoch}/{sampler.steps_per_epoch}"
        training.progress.update(where, training.steps_left, loss.value, rate)
        session.numbers.update(training.progress.numbers)
        write_scalars(training, loss.value, rate, loss.terms)
        if is_step_due(training) and position.step_in_epoch < sampler.steps_per_epoch:
            save_state(training, keep=True)
            if stop:
                raise Interrupted
        elif stop:
            interrupt(training)


def compute_gradients(training: Training, batches: Sequence[Batch]) -> Gradients:
    """Those of one step; read beside its loss whether a rank was asked to stop."""
    session, state = training.session, training.state
    device, ranks = session.context.device, session.context.world_size
    epoch, recipe = state.position.epoch, recipe_of(session.experiment)
    shares = [mixing_share(b, state.seed, epoch) if epoch in recipe.dense else 1.0 for b in batches]
    boxes = 0
    for batch, share in zip(batches, shares, strict=True):
        _check_readable(session, batch)
        boxes += batch.num_boxes if share == 1 else 2 * batch.num_boxes
    shared = torch.tensor([boxes, session.stop.requested], dtype=torch.float32).to(device)
    shared = sum_over_ranks(shared)
    gradients = Gradients(state, len(batches), (shared[0] / ranks).clamp(min=1), shared[1])
    scales = session.experiment.dataset.augmentation.multi_scales
    for batch, share in zip(batches, shares, strict=True):
        batch = batch.to(device)
        images = distort(to_unit_range(batch.pixels), batch.colours)
        if share != 1:
            images, batch = mix(images, batch, share)
        chosen = scales if recipe.resizes(epoch) else []
        images = multi_scale(images, chosen, state.seed, state.position.step)
        gradients.add(images, batch.targets())
    return gradients


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


def mean_loss(training: Training, steps: int) -> float:
    """Over so many steps of the epoch and all ranks."""
    loss = torch.tensor(training.state.position.loss_sum / steps)
    loss = loss.to(training.session.context.device)
    average_over_ranks([loss])
    return loss.item()


def validate_if_due(training: Training, epoch: int, *, last: bool) -> Scores | None:
    """The scores of an epoch that is scored, on rank 0; None elsewhere."""
    interval = training.session.experiment.train.validation_interval
    if training.validation is not None and ((epoch + 1) % interval == 0 or last):
        return validate(training, epoch)
    remove_metrics(training.session, epoch)
    return None


def validate(training: Training, epoch: int) -> Scores | None:
    """Score the present weights, and write metrics.json; the scores on rank 0, None elsewhere."""
    session = training.session
    scores = score(training)
    if scores is None:
        return None
    loss = scores.loss if math.isfinite(scores.loss) else None
    write_metrics(session, scores, {"epoch": epoch, Kpi.VAL_LOSS: loss}, epoch)
    best = session.numbers.get("best")
    if (value := scores.summary["mAP"]) is not None:
        session.numbers["best"] = max(value, best or value)
    return scores


def score(training: Training) -> Scores | None:
    """Score the present weights; the scores on rank 0, None elsewhere."""
    assert training.validation is not None
    session, state = training.session, training.state
    model = state.scored_model(session)
    try:
        return evaluate_detector(session, predictor(model), training.validation, training.criterion)
    except Interrupted:
        interrupt(training)


def validation_kpi(scores: Scores) -> dict[str, float]:
    return {
        Kpi.VAL_MAP: scores.summary["mAP"],
        Kpi.VAL_MAP50: scores.summary["mAP50"],
        Kpi.VAL_LOSS: scores.loss,
    }


def multi_scale(images: Tensor, scales: Sequence[int | list[int]], seed: int, step: int) -> Tensor:
    """Resize a batch [B, 3, H, W] to the size drawn for this step, the same on all ranks."""
    if scales:
        drawn = scales[mix_seed(seed, step) % len(scales)]
        height, width = (drawn, drawn) if isinstance(drawn, int) else drawn
        if images.shape[-2:] != (height, width):
            images = F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


def _check_readable(session: Session, batch: Batch) -> None:
    session.meet_bad_images(batch.bad, skip=session.skip_bad_images)
    if not batch.pixels.numel():
        raise ActionError("not one training image can be decoded")
