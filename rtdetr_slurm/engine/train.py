"""Training, from the spec to the last checkpoint. Read `train` first."""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rtdetr_slurm.contract import Env, FailureClass, Kpi
from rtdetr_slurm.data.coco import check_sources
from rtdetr_slurm.engine import checkpoint as checkpoints
from rtdetr_slurm.engine.action import Action
from rtdetr_slurm.engine.datasets.batches import Batch
from rtdetr_slurm.engine.datasets.detection import mix_seed
from rtdetr_slurm.engine.distributed import (
    average_norm_statistics,
    average_over_ranks,
    barrier,
    on_main,
    spread_over_ranks,
    sum_over_ranks,
)
from rtdetr_slurm.engine.losses import Criterion, build_criterion
from rtdetr_slurm.engine.optim import lr_factor, set_learning_rate
from rtdetr_slurm.engine.preprocess import to_unit_range
from rtdetr_slurm.engine.progress import TrainingProgress, show_progress
from rtdetr_slurm.engine.report import (
    describe,
    not_finite,
    report_epoch,
    write_metrics,
    write_picture,
    write_scalars,
)
from rtdetr_slurm.engine.scalars import Scalars
from rtdetr_slurm.engine.scoring import score_model
from rtdetr_slurm.engine.sources import (
    EvaluationData,
    TrainingData,
    open_evaluation_data,
    open_training_data,
)
from rtdetr_slurm.engine.state import (
    TrainingState,
    build_state,
    capture,
    check_precision,
    restore,
    set_cudnn,
)
from rtdetr_slurm.engine.stop import Interrupted
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.runs.checkpoints import resume_candidates, resume_point

MAX_WEIGHT_SPREAD = 1e-2
"""Above this the ranks no longer train one detector; equal processors stay at 0."""


@dataclass
class Training:
    """What stays the same from the first step to the last."""

    action: Action
    data: TrainingData
    validation: EvaluationData | None
    state: TrainingState
    criterion: Criterion
    progress: TrainingProgress
    scalars: Scalars | None


def train(action: Action) -> dict[str, float]:
    """Train a detector; what is written is described in docs/engine.md.

    Returns:
        The KPIs of the last epoch on rank 0; without the validation ones elsewhere.

    Raises:
        Interrupted: asked to stop; the state is in a checkpoint of its own.
        UserError: whatever a user can do something about.
    """
    experiment, context = action.experiment, action.context
    cfg = experiment.train
    check_precision(cfg.precision, context.device)
    set_cudnn(cfg.cudnn)
    sources = check_sources(experiment, "train")
    start = on_main(lambda: find_start(action))
    begun = None if start is None else checkpoints.load(start)
    seed = choose_seed(cfg.seed, begun)

    data = open_training_data(action, sources["train"], seed)
    scored = [open_evaluation_data(action, source) for source in sources["val"]]
    validation = scored[0] if scored else None
    state = build_state(action, seed, resuming=begun is not None)
    if begun is not None and start is not None:
        restore(state, begun, start, action)
        action.say(
            f"goes on from {start}: epoch {state.position.epoch}, step {state.position.step}"
        )
    del begun  # it is as large as the model and the optimizer together

    steps = data.order.steps_per_epoch * cfg.num_epochs
    images_per_step = experiment.dataset.batch_size * context.world_size
    with show_progress(steps, images_per_step, main=context.is_main) as progress:
        scalars = Scalars(action.results_dir) if context.is_main else None
        run = Training(
            action, data, validation, state, build_criterion(experiment.model), progress, scalars
        )
        describe(run)
        kpi: dict[str, float] = {}
        for epoch in range(state.position.epoch, cfg.num_epochs):
            kpi = run_epoch(run, epoch)
    shown = validation or open_evaluation_data(action, sources["train"][0])
    write_picture(action, state.scored_model(action), shown)
    if scalars is not None:
        scalars.close()
    return kpi


def run_epoch(run: Training, epoch: int) -> dict[str, float]:
    """One epoch, or what is left of it: steps, validation, checkpoint, status line."""
    action, position = run.action, run.state.position
    cfg = action.experiment.train
    began, first_step = time.monotonic(), position.step
    position.epoch = epoch
    run_steps(run)
    per_step = (time.monotonic() - began) / max(position.step - first_step, 1)
    action.record_bad_images()

    train_loss = torch.tensor(position.loss_sum / run.data.order.steps_per_epoch)
    train_loss = train_loss.to(action.context.device)
    average_over_ranks([train_loss])
    kpi = {Kpi.TRAIN_LOSS: train_loss.item()}
    last = epoch + 1 == cfg.num_epochs
    if run.validation is not None and ((epoch + 1) % cfg.validation_interval == 0 or last):
        kpi |= validate(run, epoch)
    if (epoch + 1) % cfg.checkpoint_interval == 0 or last:
        save_epoch(run, epoch)
    report_epoch(run, kpi, time.monotonic() - began, per_step)
    position.step_in_epoch, position.loss_sum = 0, 0.0
    return kpi


def run_steps(run: Training) -> None:
    """The optimizer steps of an epoch, from where it stands.

    Raises:
        Interrupted: at a step boundary that all ranks agree on, after the state was written.
    """
    action, state, position = run.action, run.state, run.state.position
    cfg, device = action.experiment.train, action.context.device
    order = run.data.order
    order.set_position(position.epoch, position.step_in_epoch)
    state.training_mode()
    for batch in run.data.loader if len(order) else ():
        _check_readable(action, batch)
        batch = batch.to(device)
        images = multi_scale(to_unit_range(batch.pixels), run, position.step)
        targets = batch.targets()
        shared = torch.tensor([batch.num_boxes, action.stop.requested], dtype=torch.float32)
        shared = sum_over_ranks(shared.to(device))
        num_boxes = (shared[0] / action.context.world_size).clamp(min=1)

        with autocast(cfg.precision, device):
            outputs = state.forward(images, targets)
        terms = run.criterion(outputs, targets, num_boxes)
        loss = torch.stack(list(terms.values())).sum()
        values = HostCopy(torch.stack([shared[1], loss, *terms.values()]))

        factor = lr_factor(cfg.optim, position.epoch, position.step)
        rate = set_learning_rate(state.optimizer, factor)
        backward(state, loss)
        stop, value, *rest = values.read()
        read_terms = dict(zip(terms, rest, strict=True))
        if not math.isfinite(value):
            raise ActionError(not_finite(run, batch, read_terms))
        update(state, cfg.clip_grad_norm)
        position.step += 1
        position.step_in_epoch += 1
        position.loss_sum += value
        if state.ema is not None and position.step % cfg.ema.every_n_steps == 0:
            state.ema.update()

        where = f"epoch {position.epoch + 1}/{cfg.num_epochs}"
        where += f" step {position.step_in_epoch}/{order.steps_per_epoch}"
        run.progress.update(where, position.step, value, rate)
        write_scalars(run, value, rate, read_terms)
        if stop:
            interrupt(run)


def backward(state: TrainingState, loss: Tensor) -> None:
    state.optimizer.zero_grad(set_to_none=True)
    (loss if state.scaler is None else state.scaler.scale(loss)).backward()


def update(state: TrainingState, max_norm: float) -> None:
    """Clip the gradients to a total norm of `max_norm` (0: leave them) and step."""
    if state.scaler is not None:
        state.scaler.unscale_(state.optimizer)
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), max_norm)
    if state.scaler is None:
        state.optimizer.step()
    else:
        state.scaler.step(state.optimizer)
        state.scaler.update()


def validate(run: Training, epoch: int) -> dict[str, float]:
    """Score the present weights; the KPIs on rank 0, nothing elsewhere."""
    assert run.validation is not None
    action, state = run.action, run.state
    average_norm_statistics(state.model)
    if state.ema is not None:
        average_norm_statistics(state.ema.module)
    try:
        scores = score_model(action, state.scored_model(action), run.validation, run.criterion)
    except Interrupted:
        interrupt(run)
    run.progress.pause()
    if scores is None:
        return {}
    loss = scores.loss if math.isfinite(scores.loss) else None
    state.metrics = {"epoch": epoch, Kpi.VAL_LOSS: loss, **scores.metrics.as_json()}
    write_metrics(action, run.data.table.classes, state.metrics)
    summary = scores.metrics.summary
    return {
        Kpi.VAL_MAP: summary["mAP"],
        Kpi.VAL_MAP50: summary["mAP50"],
        Kpi.VAL_LOSS: scores.loss,
    }


def save_epoch(run: Training, epoch: int) -> None:
    """Write model_epoch_NNN.pth; the checkpoint of an earlier interruption is superseded by it."""
    action = run.action
    content = capture(run.state, action, run.data.table.classes, complete=True)
    check_equal_weights(run)
    if action.context.is_main:
        checkpoints.save(checkpoints.epoch_path(action.results_dir, epoch), content)
        checkpoints.remove_interrupted(action.results_dir)
    run.progress.pause()


def check_equal_weights(run: Training) -> None:
    """Data-parallel training is sound only while all ranks hold the same weights: make sure.

    Raises:
        ActionError: they have drifted apart by more than rounding on unlike processors explains.
    """
    context = run.action.context
    if context.world_size == 1:
        return
    spread = spread_over_ranks(list(run.state.model.parameters()))
    if not spread <= MAX_WEIGHT_SPREAD:
        raise ActionError(
            f"the weights of the {context.world_size} ranks differ by up to {spread:g}; no "
            "checkpoint is written. This is a fault of the network, the memory or the driver of "
            "a node: go on from the previous checkpoint on other nodes",
            FailureClass.INFRA,
        )
    run.action.say(f"{context.world_size} ranks hold equal weights (spread {spread:g})")


def interrupt(run: Training) -> None:
    """Write the state of this moment and end; called by all ranks at the same step.

    Raises:
        Interrupted: always.
    """
    action = run.action
    content = capture(run.state, action, run.data.table.classes, complete=False)
    if action.context.is_main:
        position = run.state.position
        path = checkpoints.interrupted_path(
            action.results_dir, position.epoch, position.step_in_epoch
        )
        checkpoints.save(path, content)
        checkpoints.remove_interrupted(action.results_dir, but=path)
    barrier()
    raise Interrupted


def find_start(action: Action) -> Path | None:
    """The checkpoint to go on from, or None to begin.

    A restarted job goes on from the furthest whole checkpoint in its results folder. Any other
    start refuses a folder that holds checkpoints, unless it is told which one to resume.

    Raises:
        RequestError: the folder holds the checkpoints of another training.
    """
    named = action.experiment.train.resume_training_checkpoint_path
    explicit = Path(named) if named else None
    if os.environ.get(Env.RESUME) == "1":
        furthest, problems = resume_point(action.results_dir)
        for problem in problems:
            action.warn(f"checkpoint is damaged: {problem}; passed over")
        if furthest is None:
            action.say(f"no checkpoint to go on from in {action.results_dir}: starts over")
            return explicit
        return furthest.path
    if explicit is None and resume_candidates(action.results_dir):
        raise RequestError(
            f"{action.results_dir} already holds checkpoints of a training: choose another "
            "results_dir, or name the one to go on from in train.resume_training_checkpoint_path"
        )
    return explicit


def choose_seed(wanted: int, begun: Mapping[str, Any] | None) -> int:
    """`train.seed`; for -1 a new one, the same on all ranks, or that of the checkpoint."""
    if wanted >= 0:
        return wanted
    return int(begun["seed"]) if begun is not None else on_main(lambda: secrets.randbits(31))


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision for the forward pass: nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def multi_scale(images: Tensor, run: Training, step: int) -> Tensor:
    """Resize a batch [B, 3, H, W] to the size drawn for this step, the same on all ranks."""
    scales = run.action.experiment.dataset.augmentation.multi_scales
    if scales:
        drawn = scales[mix_seed(run.state.seed, step) % len(scales)]
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


def _check_readable(action: Action, batch: Batch) -> None:
    action.meet_bad_images(batch.bad)
    if not batch.pixels.numel():
        raise ActionError("not one training image can be decoded")
