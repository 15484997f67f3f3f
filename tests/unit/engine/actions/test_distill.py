"""Distillation on one rank: the training loop with another objective."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_support import BINDINGS, TEACHER, write_teacher
from engine_support import (  # noqa: F401
    Workspace,
    fresh_detector,
    stopping_at,
    tiny_spec,
    workspace,
)

from rtdetr_slurm.engine.actions.distill import distill
from rtdetr_slurm.engine.process.session import Session
from rtdetr_slurm.engine.process.stop import Interrupted
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.engine.training.teacher import compare_with_teacher
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.runs.checkpoint_record import read_weights_record

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def session_of(
    workspace: Workspace, path: Path, *overrides: str, bindings: Any = None, epochs: int = 1
) -> Session:
    return workspace.session(
        f"distill.pretrained_teacher_model_path={path}",
        f"distill.bindings={json.dumps(bindings or BINDINGS)}",
        "train.enable_ema=true",
        f"train.num_epochs={epochs}",
        "train.checkpoint_interval=1",
        "dataset.val_data_sources=null",
        *overrides,
        name="distill",
    )


def test_an_interrupted_distillation_is_the_same(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the teacher, whose architecture is in its checkpoint, is in no checkpoint of the
    student."""
    teacher = write_teacher(workspace)
    assert read_weights_record(teacher).spec == workspace.session(*TEACHER).resolved
    name = "model_epoch_000.pth"
    distill(session_of(workspace, teacher, f"distill.results_dir={workspace.root / 'whole'}"))
    whole = load_checkpoint(workspace.root / "whole" / name)
    assert f"the teacher is resnet_34 of {teacher}, built by what its" in capsys.readouterr().out

    with pytest.raises(Interrupted):
        distill(stopping_at(session_of(workspace, teacher), 1))
    monkeypatch.setenv("RTDETR_RESUME", "1")
    others = session_of(workspace, teacher, bindings=BINDINGS[1:])
    with pytest.raises(RequestError, match=r"has projections of other features: distill\.b"):
        distill(others)
    distill(session_of(workspace, teacher))
    resumed = load_checkpoint(workspace.results / "distill" / name)
    for part in ("model", "ema", "auxiliary"):
        assert whole[part].keys() == resumed[part].keys()
        for key, tensor in whole[part].items():
            torch.testing.assert_close(tensor, resumed[part][key], rtol=0, atol=1e-6, msg=key)
    assert whole["model"].keys() == fresh_detector(workspace.session()).state_dict().keys()
    assert [tuple(tensor.shape) for tensor in whole["auxiliary"].values()] == [
        (48, 32, 1, 1), (48,), (48, 32, 1, 1), (48,)
    ]  # fmt: skip

    # An epoch that is done is where the rates may change, also in another folder.
    monkeypatch.delenv("RTDETR_RESUME")
    of_whole = f"train.resume_training_checkpoint_path={workspace.root / 'whole' / name}"
    further = workspace.root / "further"
    changed = ("train.optim.lr=1e-6", f"distill.results_dir={further}")
    distill(session_of(workspace, teacher, of_whole, *changed, epochs=2))
    last = load_checkpoint(further / "model_epoch_001.pth")
    groups = last["optimizer"]["param_groups"]
    assert [one["lr"] for one in groups] == pytest.approx([1e-4, 1e-4, 1e-6, 1e-6])
    for key, tensor in whole["auxiliary"].items():
        torch.testing.assert_close(tensor, last["auxiliary"][key], rtol=0, atol=1e-5, msg=key)


def test_a_teacher_of_other_classes_is_noted(workspace: Workspace) -> None:
    session = session_of(workspace, workspace.root / "none.pth")
    compare_with_teacher(session, {1: "circle", 2: "triangle"}, {1: "circle", 3: "triangle"})
    (line,) = workspace.status("distill")
    assert "class 'triangle' had id 2 in training and has id 3 here" in line["message"]
    compare_with_teacher(session, None, {1: "circle"})  # weights from elsewhere
    assert len(workspace.status("distill")) == 1


def test_what_cannot_teach_is_refused(workspace: Workspace) -> None:
    teacher = write_teacher(workspace)
    other = f"distill.teacher={json.dumps(tiny_spec(Path(), Path())['model'])}"
    wrong = r"distill\.teacher\.backbone: found 'resnet_18'; the teacher's checkpoint, \S*, has 're"
    with pytest.raises(RequestError, match=wrong):
        distill(session_of(workspace, teacher, other))
    with pytest.raises(RequestError, match="no layer of the student's encoder and decoder"):
        distill(session_of(workspace, teacher, "model.load_teacher_enc_dec=true"))
    with pytest.raises(RequestError, match=r"teacher_model_path: \S*gone\.pth does not exist"):
        distill(session_of(workspace, workspace.root / "gone.pth"))
    weights = workspace.root / "weights.pth"
    torch.save(load_checkpoint(teacher)["model"], weights)
    with pytest.raises(
        RequestError, match=r"does not say what detector it is of: distill\.teacher"
    ):
        distill(session_of(workspace, weights))
    assert not list(workspace.results.rglob("*.pth"))
