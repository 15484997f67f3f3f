"""A teacher that has learned nothing, and what a student is to take from it."""

from __future__ import annotations

from pathlib import Path

from engine_support import Workspace, fresh_detector

from rtdetr_slurm.engine.training.checkpoint import save_checkpoint

TEACHER = ("model.feat_channels=[48,48]", "model.hidden_dim=48", "model.backbone=resnet_34")
BINDINGS = [
    {"student_module_name": "srcs", "teacher_module_name": "srcs", "criterion": "IOU"},
    {"student_module_name": "backbone", "teacher_module_name": "backbone", "criterion": "L2"},
]


def write_teacher(workspace: Workspace) -> Path:
    """A checkpoint as a training leaves it, of a detector that has learned nothing."""
    session = workspace.session(*TEACHER)
    path = workspace.root / "teacher.pth"
    weights = fresh_detector(session, seed=5).state_dict()
    training = {"version": "0", "model": weights, "ema": None, "optimizer": {}, "epoch": 0}
    classes = {1: "circle", 2: "square", 3: "triangle"}
    save_checkpoint(path, {**training, "classes": classes, "spec": session.resolved})
    return path
