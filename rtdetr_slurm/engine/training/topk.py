"""Checkpoints ranked by a metric (`train.checkpointer`).

A ranked checkpoint is the epoch's model_epoch_NNN.pth, which everything goes by, and has its own
name beside: one file with two names where the file system allows it, else a copy. What is new is
there before anything is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from rtdetr_slurm.contract import CHECKPOINT_PATTERN, HIGHER_IS_BETTER, Kpi
from rtdetr_slurm.engine.process.distributed import on_main
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.engine.training.saving import is_periodic
from rtdetr_slurm.engine.training.state import Training
from rtdetr_slurm.files import replace_with
from rtdetr_slurm.runs.checkpoints import list_checkpoints, list_steps


def best_epochs(values: Mapping[int, float], count: int, *, higher: bool) -> list[int]:
    """The epochs with the best values, the best first; of equals the later, as the choice of the
    best checkpoint has it."""
    sign = 1 if higher else -1
    ranked = sorted(values, key=lambda epoch: (sign * values[epoch], epoch), reverse=True)
    return ranked[:count]


def is_ranked(training: Training, epoch: int) -> bool:
    """Whether an epoch that was just scored is among the best; every rank must call it, and rank
    0, which alone knows the scores, answers for all."""
    if not training.session.experiment.train.checkpointer.enable_topk:
        return False
    return on_main(lambda: epoch in _ranked(training, epoch))


def settle(training: Training) -> None:
    """On rank 0, when a training goes on: do what an earlier start has had no time for after its
    last checkpoint."""
    found = list_checkpoints(training.session.results_dir)
    if found and found[-1].epoch == training.state.position.epoch - 1:
        keep_best(training, found[-1].epoch)


def keep_best(training: Training, epoch: int) -> None:
    """On rank 0, after the checkpoint of an epoch has its name: give those that rank theirs, and
    remove what is kept no longer.

    Raises:
        ActionError: a folder takes no changes.
    """
    session = training.session
    cfg = session.experiment.train.checkpointer
    if not cfg.enable_topk:
        return
    ranked = _ranked(training, epoch)
    folder = Path(cfg.dirpath) if cfg.dirpath else session.results_dir
    names = {
        each: folder / cfg.file_name(each, kpis)
        for each, kpis in _kpis(training).items()
        if cfg.metric in kpis
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in ranked:
            if each == epoch or not names[each].exists():
                _name_too(_checkpoint(training, each), names[each])
        for path in [names[each] for each in names if each not in ranked]:
            path.unlink(missing_ok=True)
        for path in _superseded(training, {*ranked, epoch}):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise writing_error(error, folder) from None


def _ranked(training: Training, epoch: int) -> list[int]:
    """Of the epochs that have a checkpoint here, and of the one that is to get it."""
    cfg = training.session.experiment.train.checkpointer
    values = training.state.history.get(cfg.metric, {})
    there = {one.epoch for one in list_checkpoints(training.session.results_dir)} | {epoch}
    known = {each: value for each, value in values.items() if each in there}
    higher = cfg.metric in HIGHER_IS_BETTER if cfg.mode is None else cfg.mode == "max"
    return best_epochs(known, cfg.save_top_k, higher=higher)


def _superseded(training: Training, kept: set[int]) -> list[Path]:
    """Checkpoints of this training that are neither kept nor periodic."""
    folder = training.session.results_dir
    replace_periodic = training.session.experiment.train.checkpointer.replace_periodic
    epochs = training.state.history.get(Kpi.TRAIN_LOSS, {})
    found = [
        one.path
        for one in list_checkpoints(folder)
        if one.epoch in epochs
        and one.epoch not in kept
        and (replace_periodic or not is_periodic(training, one.epoch))
    ]
    return [*found, *(one.path for one in list_steps(folder) if replace_periodic)]


def _kpis(training: Training) -> dict[int, dict[str, float]]:
    """By epoch."""
    found: dict[int, dict[str, float]] = {}
    for name, values in training.state.history.items():
        for epoch, value in values.items():
            found.setdefault(epoch, {})[name] = value
    return found


def _checkpoint(training: Training, epoch: int) -> Path:
    return training.session.results_dir / CHECKPOINT_PATTERN.format(epoch=epoch)


def _name_too(path: Path, name: Path) -> None:
    """Give a file a second name, or a copy where it can have none; what had the name is replaced,
    and at no moment is there nothing."""
    if name.exists() and name.samefile(path):
        return
    beside = name.with_name(f".{name.name}.{os.getpid()}.tmp")
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:  # another file system, or one without hard links
        with path.open("rb") as source:
            replace_with(name, lambda target: shutil.copyfileobj(source, target))
        return
    beside.replace(name)
