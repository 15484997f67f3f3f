"""What distillation can bind, and the teacher's checkpoint against the spec."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, load, problems

from rtdetr_slurm.spec import in_lines
from rtdetr_slurm.spec.bindings import feature_modules
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.model import ModelConfig
from rtdetr_slurm.spec.teacher import resolve_teacher

OTHERS = [text for text in NEEDED["distill"] if "bindings" not in text]
TEACHER = "distill.teacher={backbone: resnet_101_vd, feat_channels: [384, 384, 384]}"


def binding(student: str, teacher: str = "", criterion: str = "L2") -> str:
    one = {"student_module_name": student, "teacher_module_name": teacher or student}
    return f"distill.bindings={json.dumps([one | {'criterion': criterion}])}"


@pytest.mark.parametrize(
    ("student", "teacher"),
    [
        ("srcs", "dsrcs"),
        ("backbone", "encoder"),
        ("backbone.layer2.0.bn1", "backbone.res_layers.1.blocks.0.branch2a.conv"),
        ("encoder.fpn_blocks.0.bottlenecks", "encoder.pan_blocks.1.conv1"),
        ("encoder.encoder.0.layers.0", "encoder.encoder.0.layers.0.self_attn"),
        ("encoder.encoder.0", "decoder.input_proj.2"),
    ],
)
def test_what_can_be_bound(tmp_path: Path, student: str, teacher: str) -> None:
    load(tmp_path, "", *OTHERS, TEACHER, binding(student, teacher), action="distill")


@pytest.mark.parametrize(
    ("student", "overrides", "message"),
    [
        ("encoder.fpn_block", [], "student_module_name: found 'encoder.fpn_block', which the "
         "student does not have; encoder has input_proj, encoder, lateral_convs,"),
        ("pred_logits", [], "found 'pred_logits', which the student does not have; it has "
         "backbone, encoder, decoder; allowed: srcs, dsrcs, or the dotted name of a module"),
        ("backbone.layer5", [], "found 'backbone.layer5', which the student does not have"),
        ("encoder.input_proj.0.conv.weight", [], "which is a parameter of the student"),
        ("encoder.input_proj", [], "a list without an output of its own; allowed: one of it, "
         "encoder.input_proj.0"),
        ("encoder.encoder", [], "which is a list without an output of its own"),
        ("decoder.dec_score_head.5", [], "which computes on queries: the student's are its own"),
        ("backbone", ["model.train_backbone=false"], "and nothing that leads to it is trained"),
        ("encoder.fpn_blocks.0", ["train.freeze=[backbone, encoder]"],
         "the student cannot learn it"),
        ("srcs", ["distill.bindings[0].teacher_module_name=encoder.pan_blocks.0"],
         "teacher_module_name: found 'encoder.pan_blocks.0', which is one map; the student's "
         "'srcs' is 3 maps, one per level"),
        ("encoder.encoder.0.layers.0", ["model.use_encoder_idx=[1]"],
         "which is the cells of a map of stride 32; the student's 'encoder.encoder.0.layers.0' is "
         "the cells of a map of stride 16"),
        ("dsrcs", ["distill.teacher={num_feature_levels: 2, return_interm_indices: [2, 3], "
                   "feat_strides: [16, 32], feat_channels: [256, 256], use_encoder_idx: [1]}"],
         "which is 2 maps, one per level; the student's 'dsrcs' is 3 maps"),
        ("srcs", ["distill.teacher={backbone: convnext_tiny, num_feature_levels: 2, "
                  "return_interm_indices: [2, 3], feat_strides: [16, 32], "
                  "feat_channels: [256, 256], use_encoder_idx: [1]}"],
         "distill.teacher.return_interm_indices: found 2 levels; allowed with convnext_tiny: 3"),
        ("backbone.stages_1.blocks.0.mlp", ["model.backbone=convnext_tiny"],
         "which puts out no map of the image; allowed: a module of the student that does, such as "
         "backbone.stages_1.blocks.0"),
        ("srcs", ["distill.teacher.num_queries=1000", "dataset.augmentation.multi_scales=[64]",
                  "model.num_queries=50", "model.num_select=50"],
         "distill.teacher.num_queries: found 1000; allowed: ≤ 84"),
        ("srcs", ["distill.bindings[0].criterion=IOU"], "criterion: found IOU; it compares the "
         "teacher's queries, 256 wide (hidden_dim), with its maps, 384 wide (feat_channels)"),
        ("srcs", ["distill.bindings[0].weight=-1"], "weight: found -1; allowed: ≥ 0"),
    ],
)  # fmt: skip
def test_what_cannot(tmp_path: Path, student: str, overrides: list[str], message: str) -> None:
    lines = problems(tmp_path, "", *OTHERS, TEACHER, binding(student), *overrides,
                     action="distill")  # fmt: skip
    assert any(message in line for line in lines), lines


def test_srcs_are_the_maps_as_they_leave_projection_and_transformer() -> None:
    model = ModelConfig(use_encoder_idx=[2, 0])
    assert feature_modules("srcs", model) == (
        "encoder.encoder.1",
        "encoder.input_proj.1",
        "encoder.encoder.0",
    )
    assert feature_modules("dsrcs", model) == ("encoder",)


def test_a_teacher_that_the_chain_trains_is_the_model(tmp_path: Path) -> None:
    chain = ["job.then=[distill]", "model.dec_layers=3", *NEEDED["train"], binding("srcs")]
    load(tmp_path, "", *chain, action="train")
    load(tmp_path, "", *chain, "distill.teacher.dec_layers=3", action="train")
    lines = problems(tmp_path, "", *chain, "distill.teacher.dec_layers=2", action="train")
    assert lines == [
        "override 'distill.teacher.dec_layers=2': distill.teacher.dec_layers: found 2; the teacher "
        "is what train leaves here, whose model.dec_layers is 3; allowed: the same, or no "
        "distill.teacher"
    ]


def experiment(tmp_path: Path, *overrides: str, bound: str = "srcs") -> ExperimentConfig:
    given = [*OTHERS, binding(bound), *overrides]
    return load(tmp_path, "", *given, action="distill").experiment


def trained(num_classes: int = 80, **model: Any) -> dict[str, Any]:
    return {"model": model, "dataset": {"num_classes": num_classes}}


class TestTheTeachersCheckpoint:
    def test_says_what_the_spec_leaves_open(self, tmp_path: Path) -> None:
        teacher, wrong = resolve_teacher(
            experiment(tmp_path), trained(backbone="resnet_18_vd", expansion=0.5), "t.pth"
        )
        assert (teacher.backbone, teacher.expansion, wrong) == ("resnet_18_vd", 0.5, [])

    def test_must_not_contradict_what_the_spec_gives(self, tmp_path: Path) -> None:
        given = experiment(tmp_path, "distill.teacher={backbone: resnet_18, class_cost: 9.0}")
        _, wrong = resolve_teacher(
            given, trained(81, backbone="resnet_34", dec_layers=3, class_cost=1.0), "t.pth"
        )
        assert in_lines(wrong).splitlines() == [
            "distill.teacher.backbone: found 'resnet_18'; the teacher's checkpoint, t.pth, has "
            "'resnet_34'; allowed: the same, or no distill.teacher, which takes all of it from "
            "there",
            "distill.teacher.dec_layers: found 6; the teacher's checkpoint, t.pth, has 3; allowed: "
            "the same, or no distill.teacher, which takes all of it from there",
            "dataset.num_classes: found 80; the teacher's checkpoint, t.pth, has 81; allowed: the "
            "same",
        ]

    def test_must_have_what_is_bound(self, tmp_path: Path) -> None:
        bound = experiment(tmp_path, bound="backbone.layer1")
        _, wrong = resolve_teacher(bound, trained(backbone="resnet_50_vd"), "t.pth")
        assert "found 'backbone.layer1', which the teacher does not have" in in_lines(wrong)
        assert resolve_teacher(bound, None, "foreign.pth") == (ModelConfig(), [])


def test_what_a_teacher_has_for_training_changes_nothing(tmp_path: Path) -> None:
    loaded = load(tmp_path, "", *NEEDED["distill"], "distill.teacher.class_cost=9.0",
                  "distill.teacher.train_backbone=false", action="distill")  # fmt: skip
    assert any(
        note == "distill.teacher.train_backbone, distill.teacher.class_cost: without effect here, "
        "as the teacher is not trained"
        for note in loaded.notes
    ), loaded.notes
