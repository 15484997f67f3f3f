"""`distill`: a student trained with the help of a teacher."""

from __future__ import annotations

from typing import Literal

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import OptionalText, Section, field
from rtdetr_slurm.spec.model import ModelConfig


class BindingConfig(Section):
    """A pair of features that distillation brings together."""

    student_module_name: OptionalText = field(
        "",
        required_by=("distill",),
        description="Feature of the student: srcs (inside the encoder), dsrcs (its output), or the "
        "dotted name of a module.",
    )
    teacher_module_name: OptionalText = field(
        "", required_by=("distill",), description="Feature of the teacher; the same for IOU."
    )
    criterion: Literal["L1", "L2", "KL", "IOU", ""] = field(
        "", required_by=("distill",), description="How the two are compared."
    )
    weight: float = field(1.0, description="Weight of the pair in the loss.")


class DistillConfig(Section):
    """Distillation; data, optimizer and loop come from `dataset` and `train`."""

    pretrained_teacher_model_path: OptionalText = field(
        "",
        path="read",
        holds="weights",
        inferred=Infer.PARENT_MODEL,
        required_by=("distill",),
        description="Checkpoint (.pth) of the teacher.",
    )
    teacher: ModelConfig = field(
        ModelConfig, description="The teacher's architecture, with the fields of `model`."
    )
    bindings: list[BindingConfig] = field(
        [],
        required_by=("distill",),
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
        description="Output folder; empty means results_dir/distill.",
    )
