"""A weight file that does not fit is an error that says how; nothing is loaded by halves."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from model_support import small_model

from rtdetr_slurm.engine.models.keymap import load_weights
from rtdetr_slurm.errors import RequestError


class Opaque:
    """Something a weight file has no business to hold."""


def refusal(path: Path, part: Any = "detector", **changes: Any) -> str:
    model = small_model(**changes)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RequestError) as error:
        load_weights(model, path, part=part)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), f"{name} was changed all the same"
    assert str(path) in str(error.value)
    return str(error.value)


def save(content: object, tmp_path: Path) -> Path:
    torch.save(content, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def test_missing_file(tmp_path: Path) -> None:
    assert "no such weight file" in refusal(tmp_path / "none.pth")


def test_text_instead_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_text("<html>404</html>")
    assert "not a file of plain weights" in refusal(path)
    path.write_text("results_dir: /out\n")  # PyTorch runs out of its stack
    assert "damaged or of another kind" in refusal(path)


def test_truncated_file(tmp_path: Path) -> None:
    path = save(small_model().state_dict(), tmp_path)
    path.write_bytes(path.read_bytes()[:-5000])
    assert "damaged or of another kind" in refusal(path)


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"\x10" * 40)
    assert "damaged or of another kind" in refusal(path)


def test_objects_are_refused_and_not_executed(tmp_path: Path) -> None:
    message = refusal(save({"state_dict": small_model().state_dict(), "x": Opaque()}, tmp_path))
    assert "holds Python objects (" in message
    assert "Opaque), which are never executed here" in message
    assert message.isprintable()
    path = tmp_path / "pickle.pth"
    path.write_bytes(pickle.dumps({"x": Opaque()}, protocol=2))
    assert "not a file of plain weights" in refusal(path)


def test_no_tensors(tmp_path: Path) -> None:
    message = refusal(save({"epoch": 3, "model": {}}, tmp_path))
    assert "no tensors found; looked for a state dict at the top level and in ema.module" in message


def test_missing_tensors_are_listed(tmp_path: Path) -> None:
    state = small_model().state_dict()
    lost = [name for name in state if name.startswith("encoder.pan_blocks.1.conv1")]
    message = refusal(save({k: v for k, v in state.items() if k not in lost}, tmp_path))
    assert len(lost) == 6
    assert "5 tensors missing from the file:" in message  # the counter is not missed
    assert "    encoder.pan_blocks.1.conv1.conv.weight\n" in message


def test_another_backbone_lists_the_first_ten_and_the_count(tmp_path: Path) -> None:
    path = save(small_model(backbone="resnet_50_vd").state_dict(), tmp_path)
    message = refusal(path)
    assert "in the file but not in the model" in message
    assert "of another shape" in message
    assert "backbone.res_layers.0.blocks.0.branch2a.conv.weight: [64, 64, 1, 1] in the file" in (
        message
    )
    assert "… and " in message
    assert len(message.splitlines()) < 40
    assert "Check that model.backbone" in message


def test_plain_weights_for_a_vd_backbone(tmp_path: Path) -> None:
    plain = small_model(backbone="resnet_18").backbone.state_dict()
    message = refusal(save(plain, tmp_path), part="backbone")
    assert "missing from the file" in message
    assert "backbone.layer1.0.conv1.weight" in message


def test_a_file_of_something_else_loads_nothing(tmp_path: Path) -> None:
    message = refusal(save({"neck.weight": torch.zeros(3)}, tmp_path), part="backbone")
    assert "missing from the file" in message
    assert "backbone.neck.weight" in message


def test_fewer_decoder_layers(tmp_path: Path) -> None:
    message = refusal(save(small_model().state_dict(), tmp_path), dec_layers=2)
    assert "decoder.decoder.layers.2.self_attn.in_proj_weight" in message


def test_levels_with_other_numbers_of_points(tmp_path: Path) -> None:
    """As many in all, so that every shape is right."""
    name = "decoder.decoder.layers.0.cross_attn.num_points_scale"
    scale = torch.tensor([1 / 3] * 3 + [1 / 6] * 6 + [1 / 3] * 3)
    message = refusal(save(small_model().state_dict() | {name: scale}, tmp_path))
    assert f"its decoder samples 3 or 6 points on a level ({name}); allowed: 4 on each" in message
