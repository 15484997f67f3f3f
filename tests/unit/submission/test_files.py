"""Files that a spec names: missing or torn ones are refused before anything is queued."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from launch_support import SCORED, write_checkpoint

from rtdetr_slurm.model_check import InvalidInput
from rtdetr_slurm.runs.checkpoints import verify_weights
from rtdetr_slurm.submission.prepare import Prepared, prepare


def write_safetensors(path: Path) -> Path:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    return path


def torn(path: Path) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 7])
    return path


@pytest.fixture
def ask(train_spec: Path) -> Callable[..., Prepared]:
    """`prepare` on this machine, with a spec for training and evaluation."""

    def ask(*overrides: str, action: str = "train") -> Prepared:
        return prepare(train_spec, [SCORED, *overrides], action=action, site="local")

    return ask


FIELDS = [
    ("train", "train.pretrained_model_path"),
    ("train", "model.pretrained_backbone_path"),
    ("train", "train.resume_training_checkpoint_path"),
    ("evaluate", "evaluate.checkpoint"),
]


@pytest.mark.parametrize(("action", "field"), FIELDS)
def test_a_missing_or_torn_file_is_refused(
    tmp_path: Path, ask: Callable[..., Prepared], action: str, field: str
) -> None:
    whole = write_checkpoint(tmp_path / "whole.pth")
    ask(f"{field}=whole.pth", action=action)
    ask(f"{field}=file://{whole}", action=action)
    wrong = {
        "gone.pth": "there is no such file",
        "data": "is a folder; allowed: a file",
        torn(write_checkpoint(tmp_path / "torn.pth")).name: "torn.pth cannot be read",
    }
    for name, reason in wrong.items():
        for text in (name, f"file://{tmp_path}/{name}"):
            with pytest.raises(InvalidInput, match=reason) as error:
                ask(f"{field}={text}", action=action)
            assert str(error.value).startswith(f"override '{field}={text}': {field}: found ")


def test_the_message_has_the_place_in_the_spec(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    spec = tmp_path / "data" / "train.yaml"
    spec.write_text(spec.read_text() + "  pretrained_model_path: gone.pth\n")
    line = len(spec.read_text().splitlines())
    with pytest.raises(InvalidInput) as error:
        ask()
    assert str(error.value) == (
        f"{spec}:{line}:26: train.pretrained_model_path: found {tmp_path}/gone.pth; there is no "
        "such file"
    )


def test_a_follow_up_is_looked_at_but_not_what_is_filled_later(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    then = "job.then=[evaluate]"
    ask(then)
    with pytest.raises(InvalidInput, match=r"evaluate\.checkpoint: .*no such file"):
        ask(then, "evaluate.checkpoint=gone.pth")
    made = f"{tmp_path}/out/train/model_epoch_000.pth"
    ask(then, f"results_dir={tmp_path}/out", f"evaluate.checkpoint={made}")
    with pytest.raises(InvalidInput, match="no such file"):
        ask(f"results_dir={tmp_path}/out", f"evaluate.checkpoint={made}", action="evaluate")
    # What another action would read is its own business.
    ask("evaluate.checkpoint=gone.pth")


def test_a_file_that_is_to_be_made_does_not_exist_yet(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    write_checkpoint(tmp_path / "whole.pth")
    (tmp_path / "old.onnx").touch()

    def export(name: str) -> Prepared:
        given = ("export.checkpoint=whole.pth", f"export.onnx_file={name}")
        return ask(*given, f"results_dir={tmp_path}/out", action="export")

    export("new.onnx")
    export(f"{tmp_path}/out/export/rtdetr.onnx")
    with pytest.raises(InvalidInput, match=r"old\.onnx exists already, and is not overwritten"):
        export("old.onnx")
    with pytest.raises(InvalidInput, match="nowhere is no folder"):
        export("nowhere/new.onnx")


def test_what_belongs_to_an_engine(tmp_path: Path, ask: Callable[..., Prepared]) -> None:
    for name in ("a.onnx", "a.engine", "b.engine", "b.engine.json"):
        (tmp_path / name).write_bytes(b"content")
    given = ("job.runtime=onnxruntime", f"results_dir={tmp_path}/out")

    def score(engine: str) -> Prepared:
        return ask(f"evaluate.trt_engine={engine}", *given, action="trt_evaluate")

    score("b.engine")
    score("a.onnx")
    with pytest.raises(InvalidInput, match=r"a\.engine\.json, which .* beside an engine, is miss"):
        score("a.engine")
    build = ("gen_trt_engine.onnx_file=a.onnx", "job.compute_capability=8.9", given[1])
    ask(*build, "gen_trt_engine.timing_cache=b.engine", action="gen_trt_engine")
    with pytest.raises(InvalidInput, match="nowhere is no folder"):
        ask(*build, "gen_trt_engine.timing_cache=nowhere/cache", action="gen_trt_engine")
    with pytest.raises(InvalidInput, match=r"b\.engine exists already, and is not overwritten"):
        ask(*build, "gen_trt_engine.trt_engine=b.engine", action="gen_trt_engine")


def test_only_our_own_checkpoints_can_be_resumed(
    tmp_path: Path, ask: Callable[..., Prepared]
) -> None:
    path = write_safetensors(tmp_path / "w.safetensors")
    ask(f"train.pretrained_model_path={path}")
    with pytest.raises(InvalidInput, match="not a zip file"):
        ask(f"train.resume_training_checkpoint_path={path}")


# --- kinds of weight files ---------------------------------------------------------------------
def test_weights_come_in_three_formats(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    state = {"a": torch.ones(3, 2), "b": torch.zeros(5)}
    files = [tmp_path / name for name in ("new.pth", "old.pth", "w.safetensors", "empty")]
    torch.save(state, files[0])
    torch.save(state, files[1], _use_new_zipfile_serialization=False)
    save_file(state, files[2], metadata={"format": "pt"})
    assert [verify_weights(file) for file in files[:3]] == [None] * 3
    for file in (files[0], files[2]):
        assert "damaged" in str(verify_weights(torn(file))) or "cannot be read" in str(
            verify_weights(file)
        )
    files[3].touch()
    assert "is no file of weights" in str(verify_weights(files[3]))


@pytest.mark.parametrize(
    "content", [b"", b"\x10", b"<html>not found</html>", struct.pack("<Q", 2) + b"[]"]
)
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    assert verify_weights(path) == f"{path} is damaged, or no .safetensors file"
