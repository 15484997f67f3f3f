"""Encrypted checkpoints and ONNX files: every reader of the engine takes them, with their key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_support import Workspace, fresh_detector, open_workspace

from rtdetr_slurm import encryption
from rtdetr_slurm.encryption import damage, is_encrypted
from rtdetr_slurm.engine.actions.export import export
from rtdetr_slurm.engine.detector import new_detector, trained_detector
from rtdetr_slurm.engine.models.weights import read_state_dict
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint, save_checkpoint
from rtdetr_slurm.engine.training.teacher import load_teacher
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_record import read_weights_record
from rtdetr_slurm.runs.checkpoints import verify_checkpoint, verify_weights
from rtdetr_slurm.vision.onnx_runtime import open_onnx

KEY = "hunter2"
BINDING = (
    "distill.bindings=[{student_module_name: srcs, teacher_module_name: srcs, criterion: IOU}]"
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    with (
        open_workspace(tmp_path_factory.mktemp("work")) as opened,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(encryption, "COST", 4)
        yield opened


@pytest.fixture(scope="module")
def checkpoint(workspace: Workspace) -> Path:
    """An encrypted checkpoint as a training leaves it."""
    session = workspace.session()
    weights = fresh_detector(session).state_dict()
    content = {"model": weights, "ema": None, "optimizer": {}, "epoch": 0, "classes": {1: "box"}}
    path = workspace.root / "model_epoch_000.pth"
    save_checkpoint(path, {**content, "spec": session.resolved}, KEY)
    return path


def test_every_reader_takes_it_with_its_key(workspace: Workspace, checkpoint: Path) -> None:
    assert verify_checkpoint(checkpoint) is None
    assert verify_weights(checkpoint) is None
    assert read_weights_record(checkpoint).spec is None, "who has no key sees nothing"
    session = replace(workspace.session(name="evaluate"), key=KEY)
    found = load_checkpoint(checkpoint, KEY)
    loaded = trained_detector(session, checkpoint)
    assert (loaded.classes, loaded.epoch) == ({1: "box"}, 0)
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, found["model"][name]), name
    start = f"train.pretrained_model_path={checkpoint}"
    begun = new_detector(replace(workspace.session(start), key=KEY)).state_dict()
    assert all(torch.equal(tensor, found["model"][name]) for name, tensor in begun.items())
    given = (f"distill.pretrained_teacher_model_path={checkpoint}", BINDING)
    teacher, _ = load_teacher(replace(workspace.session(*given, name="distill"), key=KEY))
    assert teacher.classes == {1: "box"}


@pytest.mark.parametrize(
    ("key", "problem"), [(None, "is encrypted, and there is no key"), ("wrong", "with another key")]
)
def test_no_reader_takes_it_without(
    workspace: Workspace, checkpoint: Path, key: str | None, problem: str
) -> None:
    session = replace(workspace.session(name="evaluate"), key=key)
    with pytest.raises(RequestError, match=problem):
        load_checkpoint(checkpoint, key)
    with pytest.raises(RequestError, match=problem):
        trained_detector(session, checkpoint)
    given = (f"distill.pretrained_teacher_model_path={checkpoint}", BINDING)
    with pytest.raises(RequestError, match=problem):
        load_teacher(replace(workspace.session(*given, name="distill"), key=key))


def test_an_exported_file_is_never_on_disk_as_it_is(
    workspace: Workspace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = []
    monkeypatch.setattr("onnx.save_model", lambda *_, **__: plain.append("saved"))
    monkeypatch.setattr("onnx.load", lambda *_, **__: plain.append("traced by way of a file"))
    given = (f"export.checkpoint={checkpoint}", "dataset.val_data_sources=null")
    size = ("export.input_height=64", "export.input_width=64", "export.serialize_nvdsinfer=true")
    session = workspace.session(*given, "dataset.test_data_sources=null", *size, name="export")
    export(replace(session, key=KEY))
    path = workspace.results / "export" / "rtdetr.onnx"
    assert (plain, is_encrypted(path), damage(path)) == ([], True, None)
    assert b"pred_logits" not in path.read_bytes()
    assert json.loads((path.parent / "export.json").read_text())["encrypted"] is True
    assert "DeepStream reads it once it is decrypted" in (path.parent / "status.json").read_text()
    detector = open_onnx(path, key=KEY)
    assert detector(torch.rand(1, 3, 64, 64))["pred_logits"].shape == (1, 10, 4)
    for key, problem in ((None, "there is no key"), ("wrong", "another key")):
        with pytest.raises(RequestError, match=problem):
            open_onnx(path, key=key)


def test_what_one_file_does_not_hold_is_not_encrypted(
    workspace: Workspace, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtdetr_slurm.engine.onnx_graph.MAX_BYTES", 1000)
    given = (f"export.checkpoint={checkpoint}", "export.onnx_file=/tmp/large.onnx")
    session = workspace.session(*given, name="export")
    with pytest.raises(RequestError, match="more than 2 GiB cannot be encrypted"):
        export(replace(session, key=KEY))


def test_weights_that_tao_has_encrypted_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rtdetr_model.pth"
    torch.save({"state_dict": {"sealed": b"x"}, "state_dict_encrypted": True}, path)
    with pytest.raises(RequestError, match="TAO has encrypted the weights in it"):
        read_state_dict(path, KEY)
