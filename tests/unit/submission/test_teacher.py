"""A teacher's checkpoint is looked at before anything is queued."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from launch_support import write_own

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.submission.prepare import Prepared, prepare

BINDINGS = (
    "distill.bindings=[{student_module_name: srcs, teacher_module_name: srcs, criterion: IOU}]"
)


def write_teacher(path: Path, **model: object) -> Path:
    return write_own(path, spec={"model": model, "dataset": {"num_classes": 4}})


@pytest.fixture
def ask(tmp_path: Path, train_spec: Path) -> Callable[..., Prepared]:
    """`prepare` on this machine, with a spec for distillation."""
    teacher = write_teacher(tmp_path / "teacher.pth", backbone="resnet_34_vd", dec_layers=3)

    def ask(*overrides: str) -> Prepared:
        path = f"distill.pretrained_teacher_model_path={teacher}"
        given = ["dataset.num_classes=4", path, *overrides]
        return prepare(train_spec, given, action="distill", site="local")

    return ask


def test_what_agrees_is_planned(ask: Callable[..., Prepared]) -> None:
    plan = ask(BINDINGS).plan
    assert [stage.action for stage in plan.stages] == ["distill"]
    ask(BINDINGS, "distill.teacher={backbone: resnet_34_vd, dec_layers: 3}")


def test_what_does_not_is_refused_with_both_sides(ask: Callable[..., Prepared]) -> None:
    with pytest.raises(InvalidInput) as error:
        ask(BINDINGS, "distill.teacher.backbone=resnet_34_vd")
    assert "distill.teacher.dec_layers: found 6; the teacher's checkpoint, " in str(error.value)
    assert "teacher.pth, has 3; allowed: the same, or no distill.teacher" in str(error.value)
    with pytest.raises(InvalidInput, match=r"'backbone\.layer1', which the teacher does not"):
        ask("distill.bindings=[{student_module_name: backbone, teacher_module_name: "
            "backbone.layer1, criterion: L2}]")  # fmt: skip
