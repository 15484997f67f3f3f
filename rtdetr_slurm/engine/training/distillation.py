"""Distillation as an objective: the detector's own losses, and terms that bring features of the
student and of the teacher together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rtdetr_slurm.engine.losses import Criterion
from rtdetr_slurm.engine.losses.distillation import (
    COMPARISONS,
    channel_dim,
    like_map,
    object_mask,
    object_quality,
)
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.engine.models.features import Features, captured, sample_features
from rtdetr_slurm.engine.models.types import PaddedTargets
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.training.objective import DetectionObjective
from rtdetr_slurm.engine.training.precision import autocast, training_precision
from rtdetr_slurm.engine.training.teacher import (
    compare_with_teacher,
    load_teacher,
    start_from_teacher,
)
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.bindings import feature_modules
from rtdetr_slurm.vision.samples import Target

MASKED = "IOU"
"""The criterion that looks only where the teacher has found objects."""


@dataclass(frozen=True)
class Binding:
    """A feature of the student and one of the teacher.

    Attributes:
        student, teacher: the modules whose outputs they are.
        weight: of the pair in the loss.
    """

    student: tuple[str, ...]
    teacher: tuple[str, ...]
    criterion: str
    weight: float

    def pairs(self, ours: Features, theirs: Features) -> Iterator[tuple[Tensor, Tensor]]:
        """The tensors of both, one by one."""
        student = [tensor for name in self.student for tensor in ours[name]]
        teacher = [tensor for name in self.teacher for tensor in theirs[name]]
        return zip(student, teacher, strict=True)


class Teacher:
    """A detector in eval mode, which is no part of any module: nothing trains it, synchronises it,
    puts it into training mode or saves it."""

    def __init__(self, model: RTDETR, bound: Sequence[str]) -> None:
        self.model, self.bound = model, bound
        self.last_layer = f"decoder.decoder.layers.{model.decoder.decoder.eval_idx}"

    @torch.no_grad()
    def look(self, images: Tensor, targets: Sequence[Target]) -> tuple[Features, Tensor, Tensor]:
        """Its features, its queries [B, Q, D], and how well each has found an object [B, Q]."""
        with captured(self.model, [*self.bound, self.last_layer]) as features:
            found = self.model(images)
        boxes = found["pred_boxes"].float()
        padded = PaddedTargets.from_list(targets, boxes.dtype)
        quality = object_quality(found["pred_logits"].float(), boxes, padded)
        return features, features[self.last_layer][0].float(), quality


class DistillationObjective(DetectionObjective):
    """RT-DETR's own losses, and one term per binding, `loss_distillation_<i>`.

    Args:
        coefficient: of all bindings together.

    Attributes:
        auxiliary: for each tensor of each binding what brings the student's to the teacher's width
            where they differ: a 1x1 convolution, for cells a linear layer.
    """

    def __init__(
        self,
        detector: RTDETR,
        criterion: Criterion,
        precision: str,
        teacher: RTDETR,
        bindings: Sequence[Binding],
        coefficient: float,
    ) -> None:
        super().__init__(detector, criterion, precision)
        self.bindings, self.coefficient = tuple(bindings), coefficient
        self.taught = [name for each in bindings for name in each.student]
        self.teacher = Teacher(teacher, [name for each in bindings for name in each.teacher])
        ours = sample_features(detector, self.taught)
        theirs = sample_features(teacher, self.teacher.bound)
        self.auxiliary = nn.ModuleList(
            _projection(*pair) for each in bindings for pair in each.pairs(ours, theirs)
        )

    def forward(
        self, images: Tensor, targets: Sequence[Target], num_boxes: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As `DetectionObjective.forward`."""
        with autocast(self.precision, images.device):
            theirs, queries, quality = self.teacher.look(images, targets)
        with captured(self.detector, self.taught) as ours:
            _, terms = super().forward(images, targets, num_boxes)
        projections = iter(self.auxiliary)
        terms = dict(terms)
        for index, binding in enumerate(self.bindings):
            losses = []
            for student, teacher in binding.pairs(ours, theirs):
                if torch.is_grad_enabled() and not student.requires_grad:
                    raise RequestError(
                        "distill.bindings: nothing that leads to the student's "
                        f"{binding.student[0]} is trained; it cannot learn from the teacher"
                    )
                with autocast(self.precision, images.device):
                    projected = next(projections)(student)
                losses.append(_difference(binding.criterion, projected, teacher, queries, quality))
            weight = self.coefficient * binding.weight
            terms[f"loss_distillation_{index}"] = weight * torch.stack(losses).sum()
        return torch.stack(list(terms.values())).sum(), terms


def _difference(
    criterion: str, student: Tensor, teacher: Tensor, queries: Tensor, quality: Tensor
) -> Tensor:
    """Of two features of one width, in float32; queries and quality as `Teacher.look` has them."""
    student, teacher = student.float(), teacher.float()
    resized = like_map(teacher, student)
    if criterion != MASKED:
        return COMPARISONS[criterion](student, resized)
    mask = like_map(object_mask(queries, quality, teacher), student)
    return COMPARISONS["L2"](mask * student, mask * resized)


def distillation_objective(
    session: Session, detector: RTDETR, criterion: Criterion, classes: Mapping[int, str]
) -> DetectionObjective:
    """The objective of the action `distill`; as `load_teacher` raises."""
    experiment = session.experiment
    teacher, config = load_teacher(session)
    compare_with_teacher(session, teacher.classes, classes)
    if experiment.model.load_teacher_enc_dec:
        copied, number = start_from_teacher(detector, teacher.model)
        session.say(
            f"{copied} of {number} tensors of encoder and decoder are the teacher's to begin with"
        )
    bindings = [
        Binding(
            feature_modules(each.student_module_name, experiment.model),
            feature_modules(each.teacher_module_name, config),
            each.criterion,
            each.weight,
        )
        for each in experiment.distill.bindings
    ]
    objective = DistillationObjective(
        detector,
        criterion,
        training_precision(experiment.train, session.context.device),
        teacher.model,
        bindings,
        experiment.model.distillation_loss_coef,
    )
    return objective.to(session.context.device)


def _projection(student: Tensor, teacher: Tensor) -> nn.Module:
    """From the student's width to the teacher's, of two features of one kind."""
    along = channel_dim(student)
    width, wanted = student.shape[along], teacher.shape[along]
    if width == wanted:
        return nn.Identity()
    return nn.Conv2d(width, wanted, 1) if along == 1 else nn.Linear(width, wanted)
