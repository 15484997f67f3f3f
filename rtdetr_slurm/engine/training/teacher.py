"""The teacher of a distillation: a trained detector that only looks on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.data.classes import class_changes
from rtdetr_slurm.engine.detector import TrainedDetector, trained_detector
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.models.weights import weights_record
from rtdetr_slurm.engine.process.distributed import spread_over_ranks
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.errors import ActionError, RequestError
from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.teacher import TEACHER, resolve_teacher

_FIELD = "distill.pretrained_teacher_model_path"


def load_teacher(session: Session) -> tuple[TrainedDetector, ModelConfig]:
    """The teacher that the spec names, in eval mode and without gradients, and its architecture.

    Raises:
        RequestError: its file cannot be read, is of another detector than the spec says, or has
            nothing that could be bound as distill.bindings wants it.
        ActionError: the ranks have not read the same weights.
    """
    path = Path(session.experiment.distill.pretrained_teacher_model_path)
    hint = ""
    try:
        trained = weights_record(path, session.key).spec
        if trained is None:
            hint = f"\n{path} does not say what detector it is of: distill.teacher must be that"
        config, problems = resolve_teacher(session.experiment, trained, path)
        if problems:
            raise RequestError(in_lines(problems))
        teacher = trained_detector(session, path, config, TEACHER)
    except FileNotFoundError:
        raise RequestError(f"{_FIELD}: {path} does not exist") from None
    except RequestError as error:
        raise RequestError(f"{_FIELD}: the teacher cannot be used:\n{error}{hint}") from error
    teacher.model.eval().requires_grad_(False)
    spread = spread_over_ranks(list(teacher.model.state_dict().values()))
    if spread != 0:
        raise ActionError(
            f"{_FIELD}: the ranks have read different weights from {path} (they differ by up to "
            f"{spread:g}): the file, or a node's view of it, is not in order",
            FailureClass.INFRA,
        )
    origin = "what its checkpoint says" if trained is not None else "distill.teacher"
    session.say(f"the teacher is {config.backbone} of {path}, built by {origin}")
    return teacher, config


def compare_with_teacher(
    session: Session, taught: Mapping[int, str] | None, classes: Mapping[int, str]
) -> None:
    """Say where a class of the training data has another name, or id, than the teacher's."""
    for change in class_changes(taught or {}, classes):
        session.warn(
            f"{change} here: of the teacher, and of the data; if these are different things, the "
            "teacher teaches the wrong ones"
        )


@torch.no_grad()
def start_from_teacher(student: RTDETR, teacher: RTDETR) -> tuple[int, int]:
    """Copy the teacher's encoder and decoder into the student's, tensor by tensor, where the shapes
    agree.

    Returns:
        How many tensors were copied, and of how many.

    Raises:
        RequestError: no layer agrees.
    """
    theirs = teacher.state_dict()
    ours: dict[str, Tensor] = {
        name: tensor
        for name, tensor in student.state_dict().items()
        if not name.startswith("backbone.")
    }
    same = [n for n, t in ours.items() if n in theirs and theirs[n].shape == t.shape]
    if not any(ours[name].dim() > 1 for name in same):  # some biases always agree
        raise RequestError(
            "model.load_teacher_enc_dec: no layer of the student's encoder and decoder has the "
            "shape of the teacher's; leave it off, or give both the same feat_channels or "
            "hidden_dim"
        )
    for name in same:
        ours[name].copy_(theirs[name])
    return len(same), len(ours)
