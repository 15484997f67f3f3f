"""Weights of another detector than the spec's are refused before anything is queued."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from launch_support import SCORED, write_own

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.submission.prepare import Prepared, prepare

Shapes = Mapping[str, tuple[int, ...]]
DETECTOR: Shapes = {
    "encoder.input_proj.0.conv.weight": (256, 512, 1, 1),
    "encoder.input_proj.1.conv.weight": (256, 1024, 1, 1),
    "encoder.input_proj.2.conv.weight": (256, 2048, 1, 1),
    "decoder.input_proj.0.conv.weight": (128, 256, 1, 1),
    "decoder.enc_score_head.weight": (80, 128),
    **{f"decoder.decoder.layers.{n}.norm1.weight": (128,) for n in range(6)},
    **{
        f"backbone.layer{stage + 1}.{block}.conv3.weight": (256 * 2**stage, 64 * 2**stage, 1, 1)
        for stage, depth in enumerate((3, 4, 6, 3))
        for block in range(depth)
    },
}
WRONG_WIDTH = "model.hidden_dim: found 256; {} has 128; allowed: the same"


def write_safetensors(path: Path, shapes: Shapes = DETECTOR) -> Path:
    """Weights without any numbers: nobody looks at them here."""
    header = {n: {"dtype": "F32", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    text = json.dumps(header).encode()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    return path


@pytest.fixture
def ask(train_spec: Path) -> Callable[..., Prepared]:
    """`prepare` on this machine, with a spec for training, evaluation and export."""

    def ask(field: str, path: Path, *overrides: str, action: str) -> Prepared:
        given = [f"{field}={path}", SCORED, *overrides]
        return prepare(train_spec, given, action=action, site="local")

    return ask


def refusal(ask: Callable[..., Prepared], *arguments: Any, action: str) -> str:
    with pytest.raises(InvalidInput) as error:
        ask(*arguments, action=action)
    return str(error.value)


@pytest.mark.parametrize("action", ["evaluate", "export"])
def test_what_is_used_as_it_is(tmp_path: Path, ask: Callable[..., Prepared], action: str) -> None:
    path = write_safetensors(tmp_path / "w.safetensors")
    field = f"{action}.checkpoint"
    message = refusal(ask, field, path, action=action)
    assert WRONG_WIDTH.format(path) in message
    assert f"dataset.num_classes: found 2; {path} has class heads for 80 classes" in message
    assert f"override '{field}={path}'" in message
    ask(field, path, "model.hidden_dim=128", "dataset.num_classes=80", action=action)


def test_what_training_starts_with_may_have_other_classes(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    path = write_safetensors(tmp_path / "w.safetensors")
    message = refusal(ask, "train.pretrained_model_path", path, action="train")
    assert WRONG_WIDTH.format(path) in message
    assert "num_classes" not in message
    ask("train.pretrained_model_path", path, "model.hidden_dim=128", action="train")


def test_of_a_backbones_file_only_the_backbone_counts(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    path, field = write_safetensors(tmp_path / "w.safetensors"), "model.pretrained_backbone_path"
    ask(field, path, action="train")
    message = refusal(ask, field, path, "model.backbone=resnet_34", action="train")
    assert message.endswith(
        f"model.backbone: found resnet_34; {path} has resnet_50; allowed: the same"
    )


def test_what_a_training_goes_on_from(tmp_path: Path, ask: Callable[..., Prepared]) -> None:
    field = "train.resume_training_checkpoint_path"
    weights = write_own(tmp_path / "weights.pth", spec={"model": {}})
    assert "is no checkpoint of a training of this program; allowed: one, or train." in (
        refusal(ask, field, weights, action="train")
    )
    spec = {"model": {"nheads": 4}}
    whole = write_own(tmp_path / "whole.pth", optimizer={}, spec=spec)
    assert f"model.nheads: found 8; {whole} has 4; allowed" in (
        refusal(ask, field, whole, action="train")
    )
    done = whole.rename(tmp_path / "model_epoch_004.pth")
    few = ("model.nheads=4", "train.num_epochs=5")
    assert f"train.num_epochs: found 5; {done} has 5 epochs done; allowed: more" in (
        refusal(ask, field, done, *few, action="train")
    )
    whole = done.rename(whole)
    # Then no other file is read.
    other = write_safetensors(tmp_path / "w.safetensors")
    started = f"train.pretrained_model_path={other}"
    ask(field, whole, "model.nheads=4", started, action="train")


def test_what_lies_beside_hugging_faces_weights(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    path = write_safetensors(tmp_path / "hub" / "model.safetensors", {})
    config: dict[str, Any] = {
        "model_type": "rt_detr_v2",
        "backbone_config": {"model_type": "rt_detr_resnet", "out_indices": [2, 3, 4]},
        "encoder_activation_function": "relu",
    }
    beside = path.with_name("config.json")
    beside.write_text(json.dumps(config))
    assert "model.enc_act: found 'gelu'; " in (
        refusal(ask, "evaluate.checkpoint", path, action="evaluate")
    )
    plan = ask("evaluate.checkpoint", path, "model.enc_act=relu", action="evaluate").plan
    assert plan.stages[0].container is None
    processor = path.with_name("preprocessor_config.json")
    processor.write_text('{"do_normalize": true}')
    assert f"checkpoint: {processor}: do_normalize: found true; allowed: false" in (
        refusal(ask, "evaluate.checkpoint", path, "model.enc_act=relu", action="evaluate")
    )
    # Training gets used to other numbers.
    ask("train.pretrained_model_path", path, "model.enc_act=relu", action="train")
    processor.unlink()
    beside.write_text(json.dumps(config | {"decoder_method": "discrete"}))
    assert f"checkpoint: {beside}: decoder_method: found 'discrete'; allowed: 'default'" in (
        refusal(ask, "evaluate.checkpoint", path, action="evaluate")
    )


def test_a_teacher_from_elsewhere(tmp_path: Path, ask: Callable[..., Prepared]) -> None:
    path, field = (
        write_safetensors(tmp_path / "w.safetensors"),
        ("distill.pretrained_teacher_model_path"),
    )
    binding = "{student_module_name: srcs, teacher_module_name: srcs, criterion: L2}"
    given = (f"distill.bindings=[{binding}]", "dataset.num_classes=80")
    message = refusal(ask, field, path, *given, action="distill")
    assert f"distill.teacher.hidden_dim: found 256; {path} has 128; allowed: the same" in message
    ask(field, path, *given, "distill.teacher.hidden_dim=128", action="distill")


def test_classes_that_have_other_ids(tmp_path: Path, ask: Callable[..., Prepared]) -> None:
    """One side counts from 0, the other from 1."""
    import torch

    own, hub = tmp_path / "own.pth", tmp_path / "hub" / "model.safetensors"
    content = {"tao_model": "rtdetr", "model": {"w": torch.zeros(1)}, "classes": {0: "thing"}}
    torch.save(content, own)
    write_safetensors(hub, {"w": (1,)})
    config: dict[str, Any] = {
        "model_type": "rt_detr",
        "backbone_config": {"model_type": "timm_backbone", "backbone": "resnet50"},
        "id2label": {"0": "thing", "1": "other"},
    }
    config["backbone_config"]["out_indices"] = [2, 3, 4]
    hub.with_name("config.json").write_text(json.dumps(config))
    for path in (own, hub):
        with pytest.raises(RequestError, match=r"coco\.json .*'thing' is 1 there, and 0 of the we"):
            ask("evaluate.checkpoint", path, action="evaluate")
    torch.save({**content, "classes": {1: "thing"}}, own)
    ask("evaluate.checkpoint", own, action="evaluate")
    torch.save({**content, "classes": {1: "other"}}, own)
    prepared = ask("evaluate.checkpoint", own, action="evaluate")
    assert any("class 1 was 'other' in training and is 'thing'" in n for n in prepared.plan.notes)


QUANTIZED = {
    "schema_version": 1,
    "library": "torchao",
    "spec": {},
    "layers": {"backbone.conv1": {"weights": "fp8_e4m3fn", "activations": None}},
}


@pytest.mark.parametrize(
    ("field", "flags", "said"),
    [
        ("evaluate.checkpoint", [], "evaluate.is_quantized: found false; {} holds a quantized"),
        ("export.checkpoint", [], "export.is_quantized: found false; {} holds a quantized"),
        ("export.checkpoint", ["export.is_quantized=true"],
         "export.opset_version: found 17; the checkpoint has layers in fp8_e4m3fn, which ONNX has "
         "from 19 on; allowed: 19"),
        ("train.pretrained_model_path", [], "train.pretrained_model_path: {} holds a quantized"),
        ("train.resume_training_checkpoint_path", [],
         "train.resume_training_checkpoint_path: {} holds a quantized detector, which evaluate"),
        ("quantize.model_path", [], "quantize.model_path: {} holds a quantized detector, which"),
    ],
)  # fmt: skip
def test_a_quantized_checkpoint_is_taken_for_what_it_is(
    tmp_path: Path, ask: Callable[..., Prepared], field: str, flags: list[str], said: str
) -> None:
    path = write_own(tmp_path / "q.pth", quantization=QUANTIZED, spec={}, model={})
    action = field.split(".")[0]
    with pytest.raises(InvalidInput) as error:
        ask(field, path, *flags, action=action)
    assert said.format(path) in str(error.value)
    if action == "export":
        ask(field, path, "export.is_quantized=true", "export.opset_version=19", action=action)
    plain = write_own(tmp_path / "p.pth", spec={}, model={})
    if action == "evaluate":
        with pytest.raises(InvalidInput, match=r"is_quantized: found true; \S* is no checkpoint"):
            ask(field, plain, "evaluate.is_quantized=true", action=action)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": 5}, "layers: found 5"),
        ({"layers": {"backbone.conv1": {"weights": []}}}, "layers.backbone.conv1"),
        ({"library": None}, "library: found None; expected text"),
        ({"schema_version": 99}, "version 99 is newer than version"),
    ],
)
def test_what_a_quantized_checkpoint_says_is_checked(
    tmp_path: Path, ask: Callable[..., Prepared], change: dict[str, Any], said: str
) -> None:
    path = write_own(tmp_path / "q.pth", quantization=QUANTIZED | change, spec={}, model={})
    with pytest.raises(RequestError) as error:
        ask("evaluate.checkpoint", path, "evaluate.is_quantized=true", action="evaluate")
    assert str(path) in str(error.value)
    assert said in str(error.value)
