"""`rtdetr convert`; that transformers computes the same is compared in tests/numerics."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, error_of, fresh_detector, workspace  # noqa: F401

from rtdetr_slurm.engine.detector import trained_detector
from rtdetr_slurm.engine.process.entry import command
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint, read_checkpoint, save_new
from rtdetr_slurm.errors import RequestError

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)

CLASSES = {1: "circle", 2: "square", 3: "triangle"}


def checkpoint_of(workspace: Workspace, *overrides: str) -> Path:
    """What a training leaves, as far as it is converted."""
    session = workspace.session(*overrides)
    path = workspace.root / "model.pth"
    path.unlink(missing_ok=True)
    weights = {"model": fresh_detector(session).state_dict(), "ema": None, "epoch": 1}
    save_new(path, {**weights, "classes": CLASSES, "spec": session.resolved})
    return path


def to(layout: str, source: Path, target: Path) -> list[str]:
    return ["convert", str(source), "-o", str(target), "--to", layout]


def test_there_and_back(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = checkpoint_of(workspace), workspace.root / "hf"
    capsys.readouterr()
    assert command(to("huggingface", path, folder)) == 0
    assert capsys.readouterr().out == f"{folder}\n"
    assert sorted(file.name for file in folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    back = workspace.root / "back.pth"
    assert command(to("rtdetr", folder, back)) == 0
    said = capsys.readouterr().err
    assert "(Hugging Face names)" in said
    assert "  hidden_dim: 32" in said
    assert "  num_classes: 4" in said
    before, after = read_checkpoint(path), read_checkpoint(back)
    assert after["classes"] == CLASSES
    assert after["model"].keys() == before["model"].keys()
    for name, tensor in before["model"].items():
        assert torch.equal(after["model"][name], tensor), name
    with pytest.raises(RequestError, match="holds weights alone, and no training to go on with"):
        load_checkpoint(back)

    # Both are used alike, and both name their classes.
    for one in (back, folder / "model.safetensors"):
        setting = f"evaluate.checkpoint={one}"
        assert trained_detector(workspace.session(setting, name="evaluate"), one).classes == CLASSES
        other = workspace.session(setting, "model.nheads=4", name="evaluate")
        with pytest.raises(RequestError, match=r"model\.nheads: found 4; \S+ has 8"):
            trained_detector(other, one)


def test_nothing_is_overwritten(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    path, folder = checkpoint_of(workspace), workspace.root / "hf"
    folder.mkdir()
    code, error = error_of(capsys, *to("huggingface", path, folder))
    assert (code, list(folder.iterdir())) == (2, [])
    assert f"{folder} exists already, and is not overwritten" in error
    size = path.stat().st_size
    code, error = error_of(capsys, *to("rtdetr", folder, path))
    assert (code, path.stat().st_size) == (2, size)
    code, error = error_of(capsys, *to("huggingface", path, workspace.root / "no" / "hf"))
    assert code == 2
    assert f"{workspace.root}/no is no folder" in error


def test_what_cannot_be_converted(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    target = workspace.root / "out"

    def refusal(layout: str, source: Path) -> str:
        code, error = error_of(capsys, *to(layout, source, target))
        assert code == 2
        assert not target.exists()
        assert not [*workspace.root.glob(".out.*")]
        return error

    foreign = workspace.root / "foreign.pth"
    torch.save({"model": {}}, foreign)
    assert "foreign.pth is not one of this engine" in refusal("huggingface", foreign)
    deep = checkpoint_of(workspace, "model.depth_mult=2")
    assert "model.depth_mult: found 2; transformers' RT-DETR always has 1" in (
        refusal("huggingface", deep)
    )
    folder = workspace.root / "hf"
    assert "config.json does not exist: allowed is a folder of" in refusal("rtdetr", folder)
    command(to("huggingface", checkpoint_of(workspace), folder))
    processor = folder / "preprocessor_config.json"
    content = json.loads(processor.read_text())
    processor.write_text(json.dumps({**content, "do_normalize": True}))
    assert f"{processor}: do_normalize: found true; allowed: false" in refusal("rtdetr", folder)
    processor.unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "decoder_layers": 5}))
    assert "tensors missing from the file" in refusal("rtdetr", folder)
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    assert "hf has no model.safetensors and no pytorch_model.bin" in refusal("rtdetr", folder)
