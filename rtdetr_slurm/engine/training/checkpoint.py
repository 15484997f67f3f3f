"""Full training state in one file.

A checkpoint is a plain dict that loads with weights_only:

    schema_version, tao_model, version   what wrote it
    epoch, step, step_in_epoch           where training stood
    model, ema, ema_updates              state dicts; ema is None without averaging
    auxiliary                            state dict of what is trained for the training alone
    optimizer, scaler                    state dicts; scaler only for fp16
    rng                                  per rank: torch's generators
    seed, world_size, batch_size         what the order of samples depends on; the images of an
                                         optimizer step on each rank
    loss_sums                            of the epoch's steps so far, per rank
    history                              KPI to epoch to value, of the epochs before this one
    classes, spec                        class id to name, the resolved spec

That of a training is written as interrupted_epoch_NNN_step_NNNNNN.pth, also after the last step of
an epoch, and is renamed to model_epoch_NNN.pth when all of the epoch is done, its validation, too.
Where checkpoints are due by steps, one within an epoch is model_epoch_NNN_step_NNNNNN.pth.
One of weights alone, which `rtdetr convert` makes, has the first line, model, ema, epoch (None),
classes and spec.

A quantized one has the same and `quantization`, which says how it was made.

The learning rate is a function of epoch and step, so there is no scheduler state.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch

from rtdetr_slurm.cipher import decrypted, encrypted
from rtdetr_slurm.contract import (
    CHECKPOINT_PATTERN,
    CHECKPOINT_VERSION,
    INTERRUPTED_PATTERN,
    STEP_PATTERN,
)
from rtdetr_slurm.engine.process.failures import writing_error
from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.files import replace_with, write_new
from rtdetr_slurm.runs.checkpoint_record import MODEL_NAME, only_to_use
from rtdetr_slurm.runs.checkpoints import list_interrupted, verify_checkpoint

TrainingCheckpoint: TypeAlias = dict[str, Any]


def save_checkpoint(path: Path, checkpoint: TrainingCheckpoint, key: str | None = None) -> None:
    """Write `checkpoint`; what was at `path` stays whole until the new one is complete.

    Args:
        key: that it is encrypted with; None: it is not.

    Raises:
        ActionError: it cannot be written, naming the path.
    """
    _save(path, checkpoint, replace_with, key)


def save_new(path: Path, checkpoint: Mapping[str, Any], key: str | None = None) -> None:
    """Write `checkpoint` where there is nothing yet.

    Args:
        key: as of `save_checkpoint`.

    Raises:
        RequestError: there is something.
        ActionError: it cannot be written, naming the path.
    """
    try:
        _save(path, checkpoint, write_new, key)
    except FileExistsError:
        raise RequestError(f"{path} exists already, and is not overwritten") from None


def _save(
    path: Path,
    checkpoint: Mapping[str, Any],
    write: Callable[[Path, Callable[[BinaryIO], object]], None],
    key: str | None,
) -> None:
    content = {"schema_version": CHECKPOINT_VERSION, "tao_model": MODEL_NAME, **checkpoint}
    try:
        write(path, encrypted(partial(torch.save, content), key))  # and not by way of memory
    except FileExistsError:
        raise
    except OSError as error:
        raise writing_error(error, path) from None
    except RuntimeError as error:
        cause = error.__context__  # what the stream raised within torch.save
        if not isinstance(cause, OSError):
            raise
        raise writing_error(cause, path) from None


def load_checkpoint(path: Path, key: str | None = None) -> TrainingCheckpoint:
    """Read a checkpoint of this engine, with all of a training, onto the CPU.

    Args:
        key: of one that is encrypted.

    Raises:
        RequestError: as `read_checkpoint`, or it is of weights alone.
    """
    content = read_checkpoint(path, key)
    if "quantization" in content:
        raise RequestError(only_to_use(path))
    if "optimizer" not in content:
        raise RequestError(
            f"checkpoint {path} holds weights alone, and no training to go on with: start one from "
            "them with train.pretrained_model_path"
        )
    return content


def read_checkpoint(path: Path, key: str | None = None) -> TrainingCheckpoint:
    """Read a checkpoint of this engine, with all of a training, of weights alone or of a quantized
    detector, onto the CPU.

    Args:
        key: of one that is encrypted.

    Raises:
        RequestError: missing, damaged, encrypted and not with this key, or not of this engine.
    """
    if not path.is_file():
        raise RequestError(f"checkpoint {path} does not exist")
    if problem := verify_checkpoint(path):
        raise RequestError(f"checkpoint is damaged: {problem}")
    try:
        with decrypted(path, key) as source:
            content = torch.load(source, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError) as error:
        raise RequestError(f"checkpoint {path} cannot be read: {error}") from None
    if not isinstance(content, dict) or not _is_ours(content):
        raise RequestError(f"checkpoint {path} is not one of this engine")
    version = content.get("schema_version")
    if isinstance(version, int) and version > CHECKPOINT_VERSION:
        raise NewerVersion(f"checkpoint {path}", version, CHECKPOINT_VERSION)
    if version != CHECKPOINT_VERSION:
        raise RequestError(
            f"checkpoint {path} has layout version {version}; this engine reads version "
            f"{CHECKPOINT_VERSION}"
        )
    return content


def _is_ours(content: Mapping[str, Any]) -> bool:
    """TAO's own files say the same of their model, and have no version."""
    return content.get("tao_model") == MODEL_NAME and "schema_version" in content


def keep_epoch(saved: Path, epoch: int) -> None:
    """Give the state that was saved after the steps of an epoch the epoch's name.

    Raises:
        ActionError: the folder takes no files any more.
    """
    try:
        saved.replace(saved.with_name(CHECKPOINT_PATTERN.format(epoch=epoch)))
    except OSError as error:
        raise writing_error(error, saved) from None


def interrupted_path(results_dir: Path, epoch: int, step: int) -> Path:
    """Where the state goes of a training that stops after `step` steps of `epoch`."""
    return results_dir / INTERRUPTED_PATTERN.format(epoch=epoch, step=step)


def step_path(results_dir: Path, epoch: int, step: int) -> Path:
    """Where the state is kept after `step` steps of `epoch`."""
    return results_dir / STEP_PATTERN.format(epoch=epoch, step=step)


def remove_interrupted(results_dir: Path, *, but: Path | None = None) -> None:
    """Remove what earlier interruptions have left; a further checkpoint has superseded it."""
    for file in list_interrupted(results_dir):
        if file.path != but:
            file.path.unlink(missing_ok=True)
