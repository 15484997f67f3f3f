"""The objective of distillation: a student and a teacher of another backbone and other widths."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from model_support import NUM_CLASSES, images, small_config, small_model, targets

from rtdetr_slurm.engine.losses import build_criterion
from rtdetr_slurm.engine.models import RTDETR, build_model
from rtdetr_slurm.engine.models.features import captured
from rtdetr_slurm.engine.training.distillation import Binding, DistillationObjective
from rtdetr_slurm.engine.training.teacher import start_from_teacher
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.bindings import feature_modules

TEACHER = {"backbone": "resnet_34", "feat_channels": [48] * 3, "hidden_dim": 48, "dec_layers": 2}


def build(backbone: str = "resnet_34", **changes: Any) -> RTDETR:
    torch.manual_seed(3)
    return build_model(small_config(**{**TEACHER, **changes}), NUM_CLASSES).eval()


def bound(student: str, criterion: str, weight: float = 1.0, teacher: str = "") -> Binding:
    ours, theirs = small_config(), small_config(**TEACHER)
    modules = feature_modules(student, ours), feature_modules(teacher or student, theirs)
    return Binding(*modules, criterion, weight)


ALL = (
    bound("srcs", "IOU", 2.0),
    bound("dsrcs", "IOU"),
    bound("backbone", "L2"),
    bound("encoder.encoder.0.layers.0", "KL"),
    bound("backbone.res_layers.1.blocks.0.branch2b", "L1", teacher="backbone.layer2.0"),
)


def objective_of(
    *bindings: Binding, teacher: RTDETR | None = None, coefficient: float = 1.0
) -> DistillationObjective:
    criterion = build_criterion(small_config())
    torch.manual_seed(5)
    return DistillationObjective(
        small_model(), criterion, "fp32", teacher or build(), bindings, coefficient
    ).train()


def terms_of(objective: DistillationObjective) -> dict[str, float]:
    torch.manual_seed(7)
    loss, terms = objective(images(), targets(3, 1), torch.tensor(2.0))
    assert loss.item() == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    return {name: t.item() for name, t in terms.items() if name.startswith("loss_distillation")}


def test_teaches_the_student_alone() -> None:
    teacher = build()
    before = copy.deepcopy(teacher.state_dict())
    objective = objective_of(*ALL, teacher=teacher)
    with_gradients = []
    teacher.register_forward_pre_hook(lambda *_: with_gradients.append(torch.is_grad_enabled()))
    assert not any("teacher" in name for name in objective.state_dict())
    optimizer = torch.optim.AdamW(objective.parameters(), lr=2e-3)
    sums = []
    for _ in range(6):
        torch.manual_seed(7)
        loss, terms = objective(images(), targets(3, 1), torch.tensor(2.0))
        sums.append(sum(terms[f"loss_distillation_{i}"].item() for i in range(len(ALL))))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert sums[-1] < 0.8 * sums[0]

    without = [name for name, p in objective.named_parameters() if p.grad is None]
    assert without == []
    assert all(p.grad is None for p in teacher.parameters())
    after = teacher.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # its norms, too
    assert not teacher.training
    assert with_gradients == [False] * 6


def test_projects_where_the_widths_differ() -> None:
    """The backbone's 128, 256 and 512 channels are the same in both, the encoder's are not."""
    shapes = [tuple(parameter.shape) for parameter in objective_of(*ALL).auxiliary.parameters()]
    assert shapes == [(48, 32, 1, 1), (48,)] * 6 + [(48, 32), (48,)]


def test_weights_count_once() -> None:
    """TAO multiplies a pair's weight in twice, shares one between pairs of the same student's
    feature, and leaves out the coefficient of all."""
    (one,) = terms_of(objective_of(bound("backbone", "L2"))).values()
    weighted = objective_of(
        bound("backbone", "L2", 3.0), bound("backbone", "L2", 5.0), coefficient=0.5
    )
    expected = {"loss_distillation_0": 1.5 * one, "loss_distillation_1": 2.5 * one}
    assert terms_of(weighted) == pytest.approx(expected, rel=1e-5)


def test_a_feature_is_what_the_module_has_put_out() -> None:
    """Also where the next module writes over it: the sum of a block is made in place."""
    model = small_model().eval()
    block = "backbone.res_layers.1.blocks.1"
    with torch.no_grad(), captured(model, [f"{block}.branch2a", f"{block}.branch2b"]) as found:
        model(images())
        again = model.get_submodule(f"{block}.branch2b")(found[f"{block}.branch2a"][0])
    torch.testing.assert_close(found[f"{block}.branch2b"][0], again)
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("freeze_norm", [False, True])
def test_in_training_every_module_has_an_output(freeze_norm: bool) -> None:
    """Also those that are computed as one with others where nobody looks."""
    model = small_model(backbone="resnet_50_vd", freeze_norm=freeze_norm).train()
    named = [
        name
        for name, module in model.named_modules()
        if name.startswith(("backbone.", "encoder."))
        and not isinstance(module, torch.nn.ModuleList)
    ]
    with captured(model, named) as found:
        model(images(), targets(3, 1))
    assert [name for name in named if name not in found] == []


def test_modules_looked_into_are_computed_again_as_before() -> None:
    """Activation checkpointing's second pass meets no hooks, and keeps what the first has kept."""
    model = build_model(
        small_config(backbone="resnet_50_vd"),
        NUM_CLASSES,
        freeze_norm=True,
        activation_checkpoint=True,
    )
    with captured(model.train(), ["backbone.res_layers.1.blocks.1.branch2a"]) as found:
        outputs = model(images(), targets(3, 1))
    (outputs["pred_boxes"].sum() + found.popitem()[1][0].sum()).backward()
    assert all(one.grad is not None for one in model.backbone.parameters())


def test_what_nothing_trained_leads_to_is_refused() -> None:
    objective = objective_of(bound("backbone", "L2"))
    objective.detector.backbone.requires_grad_(False)
    with pytest.raises(RequestError, match=r"nothing that leads to the student's backbone"):
        terms_of(objective)


def test_starts_from_the_teacher_where_shapes_agree() -> None:
    student, teacher = small_model(), build(feat_channels=[32] * 3, hidden_dim=32)
    backbone = copy.deepcopy(student.backbone.state_dict())
    copied, number = start_from_teacher(student, teacher)
    assert 0 < copied < number  # the projections of the backbone's maps agree, a third layer not
    for name, tensor in student.decoder.decoder.layers[1].state_dict().items():
        assert torch.equal(tensor, teacher.decoder.decoder.layers[1].state_dict()[name]), name
    for name, tensor in student.backbone.state_dict().items():
        assert torch.equal(tensor, backbone[name]), name
    with pytest.raises(RequestError, match="no layer of the student's encoder and decoder"):
        start_from_teacher(student, build())


def test_a_batch_without_boxes_leaves_no_parameter_without_gradient() -> None:
    """So that ranks never wait for each other's: no rank finds unused parameters."""
    objective = objective_of(*ALL)
    loss, _ = objective(images(), targets(0, 0), torch.tensor(1.0))
    loss.backward()
    assert [name for name, p in objective.named_parameters() if p.grad is None] == []
