"""From the state of a training to a checkpoint and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rtdetr_slurm import __version__
from rtdetr_slurm.engine.datasets.seeds import mix_seed
from rtdetr_slurm.engine.process.distributed import gather_objects
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.checkpoint import TrainingCheckpoint
from rtdetr_slurm.engine.training.parallel import split_like, whole
from rtdetr_slurm.engine.training.state import Position, Training, TrainingState
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import value_at
from rtdetr_slurm.runs.checkpoints import is_checkpoint_name, kpi_by_epoch


def capture(training: Training) -> TrainingCheckpoint:
    """The checkpoint of this moment; every rank must call it, and rank 0's is the whole one."""
    session, state, position = training.session, training.state, training.state.position
    return {
        "version": __version__,
        "epoch": position.epoch,
        "step": position.step,
        "step_in_epoch": position.step_in_epoch,
        "model": whole(state.model.state_dict()),
        "auxiliary": whole(state.auxiliary.state_dict()),
        "ema": None if state.ema is None else whole(state.ema.module.state_dict()),
        "ema_updates": 0 if state.ema is None else state.ema.updates,
        "optimizer": whole(state.optimizer.state_dict()),
        "scaler": None if state.scaler is None else state.scaler.state_dict(),
        "rng": gather_objects(_random_state(session.context.device)),
        "seed": state.seed,
        "world_size": session.context.world_size,
        "batch_size": training.data.sampler.batch_size,
        "loss_sums": gather_objects(position.loss_sum),
        "history": state.history,
        "classes": dict(training.data.table.classes),
        "spec": session.resolved,
    }


def restore(
    state: TrainingState, checkpoint: TrainingCheckpoint, path: Path, session: Session, images: int
) -> None:
    """Put `checkpoint` into a freshly built state, whose rates, decay and batches are those of the
    present spec.

    Args:
        images: of an optimizer step on this rank.

    Raises:
        RequestError: it belongs to another model, or has trained other parameters of it; or it
            stands within an epoch, and the samples of this start would come in another order.
    """
    _check_same_optimizer(checkpoint, path, session)
    _check_same_parameters(checkpoint, path, session)
    done = is_checkpoint_name(path.resolve().name)  # of what a latest.pth leads to
    if not done:
        _check_same_order(checkpoint, path, session, images)
    _load(state.model, checkpoint["model"], path)
    _load_auxiliary(state.auxiliary, checkpoint.get("auxiliary", {}), path)
    if state.ema is not None:
        _load(state.ema.module, checkpoint["ema"] or checkpoint["model"], path)
        state.ema.updates = checkpoint["ema_updates"]
    _load_optimizer(state.optimizer, checkpoint, path)
    if state.scaler is not None and checkpoint["scaler"]:
        state.scaler.load_state_dict(checkpoint["scaler"])
    rank, same_ranks = session.context.rank, checkpoint["world_size"] == session.context.world_size
    if same_ranks:
        _set_random_state(checkpoint["rng"][rank], session.context.device)
    else:
        torch.manual_seed(mix_seed(state.seed, rank, checkpoint["step"]))
    state.history = history_of(checkpoint, path.resolve(), session)
    if done:
        state.position = Position(epoch=checkpoint["epoch"] + 1, step=checkpoint["step"])
    else:
        sums = checkpoint.get("loss_sums") or [checkpoint["loss_sum"]] * checkpoint["world_size"]
        state.position = Position(
            checkpoint["epoch"],
            checkpoint["step_in_epoch"],
            checkpoint["step"],
            sums[rank] if same_ranks else sum(sums) / len(sums),
        )


def _check_same_order(
    checkpoint: TrainingCheckpoint, path: Path, session: Session, images: int
) -> None:
    """The images of a step are the same, whichever ranks share them, where it has as many."""
    ranks, elastic = session.context.world_size, session.experiment.engine.elastic
    together = checkpoint["world_size"] * checkpoint["batch_size"]
    if elastic and together == ranks * images:
        return
    for name, now in (("world_size", ranks), ("batch_size", images)):
        if checkpoint[name] != now:
            may = "" if elastic else ", or go on with engine.elastic: true"
            raise RequestError(
                f"checkpoint {path} is not named model_epoch_NNN.pth: it may stand in the middle "
                f"of epoch {checkpoint['epoch'] + 1}, and was written with {name} "
                f"{checkpoint[name]}; this start has {now}. Use the same, resume from a "
                f"model_epoch checkpoint{may}"
            )


def _check_same_optimizer(checkpoint: TrainingCheckpoint, path: Path, session: Session) -> None:
    """What one optimizer has gathered says nothing to another."""
    name = "train.optim.optimizer"
    there, now = value_at(checkpoint["spec"], name), value_at(session.resolved, name)
    if there != now:
        raise RequestError(
            f"{name}: found {json.dumps(now)}; checkpoint {path} trained with {json.dumps(there)}; "
            "allowed: the same, or a training that starts from its weights "
            "(train.pretrained_model_path)"
        )


def _check_same_parameters(checkpoint: TrainingCheckpoint, path: Path, session: Session) -> None:
    """Each of the optimizer's moments is of one parameter, which only its place tells."""
    for name in ("train.freeze", "model.train_backbone"):
        there, now = value_at(checkpoint["spec"], name), value_at(session.resolved, name)
        if _unordered(there) != _unordered(now):
            raise RequestError(
                f"{name}: found {json.dumps(now)}; checkpoint {path} trained with "
                f"{json.dumps(there)}, and so other "
                "parameters; allowed: the same, or a training that starts from its weights "
                "(train.pretrained_model_path)"
            )


def _unordered(value: Any) -> Any:
    return sorted(value) if isinstance(value, list) else value or []


def _load_auxiliary(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    if shapes != {name: tensor.shape for name, tensor in weights.items()}:
        raise RequestError(
            f"checkpoint {path} has projections of other features: distill.bindings and the "
            "teacher must be as they were"
        )
    _fill(module, weights)


def _load(module: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    ours = module.state_dict()
    problems = [f"{name} is missing" for name in ours.keys() - weights.keys()]
    problems += [f"{name} is not in the model" for name in weights.keys() - ours.keys()]
    problems += [
        f"{name} has shape {list(weights[name].shape)}, the model {list(ours[name].shape)}"
        for name in ours.keys() & weights.keys()
        if ours[name].shape != weights[name].shape
    ]
    if problems:
        shown = "\n  ".join(sorted(problems)[:10])
        raise RequestError(
            f"checkpoint {path} belongs to another model ({len(problems)} differences); the model "
            f"section must be the one it was trained with:\n  {shown}"
        )
    _fill(module, weights)


def _fill(module: nn.Module, weights: dict[str, Tensor]) -> None:
    filled = copy(weights)
    for name, own in module.state_dict().items():
        filled[name] = split_like(weights[name], own)
    module.load_state_dict(filled)


def _load_optimizer(optimizer: Optimizer, checkpoint: TrainingCheckpoint, path: Path) -> None:
    """Moments and step counts; rates and decay stay those of the present spec."""
    stored = checkpoint["optimizer"]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != [len(group["params"]) for group in stored["param_groups"]]:
        raise RequestError(
            f"checkpoint {path} trained other parameters: model.pretrained_backbone_path must be "
            "as it was"
        )
    now = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    moments = {
        index: {
            name: split_like(value, parameters[index]) if _is_moment(name, value) else value
            for name, value in values.items()
        }
        for index, values in stored["state"].items()
    }
    optimizer.load_state_dict({**stored, "state": moments})
    for group, settings in zip(optimizer.param_groups, now, strict=True):
        group.update(settings)


def _is_moment(name: str, value: Any) -> bool:
    return name != "step" and isinstance(value, Tensor)


def history_of(
    checkpoint: TrainingCheckpoint, path: Path, session: Session
) -> dict[str, dict[int, float]]:
    """KPI to epoch to value, of all epochs behind a checkpoint: those that it holds, and for its
    own epoch, which is scored after it is written, what status.json beside it says."""
    history = {name: dict(values) for name, values in checkpoint.get("history", {}).items()}
    if not is_checkpoint_name(path.name):
        return history
    try:
        beside = kpi_by_epoch(path.parent)
    except RequestError as error:
        session.warn(f"what epoch {checkpoint['epoch']} has reached is not known: {error}")
        return history
    for name, values in beside.items():
        if (value := values.get(checkpoint["epoch"])) is not None:
            history.setdefault(name, {})[checkpoint["epoch"]] = value
    return history


def _random_state(device: torch.device) -> dict[str, Tensor | None]:
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def _set_random_state(state: Mapping[str, Tensor | None], device: torch.device) -> None:
    cpu, cuda = state["cpu"], state["cuda"]
    if cpu is not None:
        torch.set_rng_state(cpu)
    if cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(cuda, device)
