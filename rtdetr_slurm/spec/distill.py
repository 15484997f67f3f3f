"""`distill`: a student trained with the help of a teacher."""

from __future__ import annotations

from typing import Literal

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import DISTILL, OptionalText, Section, field
from rtdetr_slurm.spec.model import ModelConfig


class BindingConfig(Section):
    """A pair of features that distillation brings together."""

    student_module_name: OptionalText = field(
        "",
        required_by=DISTILL,
        honoured_by=DISTILL,
        description="Feature of the student: srcs (the maps inside the encoder, projected and "
        "through its transformer), dsrcs (its output), or the dotted name of a module of backbone, "
        "encoder or decoder.input_proj.",
    )
    teacher_module_name: OptionalText = field(
        "",
        required_by=DISTILL,
        honoured_by=DISTILL,
        description="Feature of the teacher; the same for IOU.",
    )
    criterion: Literal["L1", "L2", "KL", "IOU", ""] = field(
        "",
        required_by=DISTILL,
        honoured_by=DISTILL,
        description="How the two are compared: by their mean absolute (L1) or squared (L2) "
        "difference, by the divergence of their distributions over the channels (KL), or by the "
        "squared difference where the teacher has found objects (IOU, on srcs or dsrcs).",
    )
    weight: float = field(
        1.0, ge=0.0, honoured_by=DISTILL, description="Weight of the pair in the loss."
    )


class DistillConfig(Section):
    """Distillation; data, optimizer and loop come from `dataset` and `train`."""

    pretrained_teacher_model_path: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PARENT_MODEL,
        required_by=DISTILL,
        honoured_by=DISTILL,
        description="Weights of the teacher: a checkpoint of this engine or of TAO, or a published "
        "RT-DETR.",
    )
    teacher: ModelConfig = field(
        ModelConfig,
        untrained="the teacher is not trained",
        description="The teacher's architecture, with the fields of `model`. Left at its defaults "
        "it is taken from the teacher's checkpoint; what is given must be as it is there.",
    )
    bindings: list[BindingConfig] = field(
        [],
        required_by=DISTILL,
        honoured_by=DISTILL,
        automl="disabled",
        template=[
            {
                "student_module_name": "srcs",
                "teacher_module_name": "srcs",
                "criterion": "IOU",
                "weight": 1.0,
            }
        ],
        description="Pairs of features to bring together.",
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=DISTILL,
        description="Output folder; empty means results_dir/distill.",
    )
