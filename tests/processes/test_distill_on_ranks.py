"""Two ranks distill one student."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from pathlib import Path

from distill_support import BINDINGS, write_teacher
from engine_support import Workspace, session_of, workspace  # noqa: F401
from ranks import run_ranks

from rtdetr_slurm.engine.actions.distill import distill
from rtdetr_slurm.engine.process.distributed import Context
from rtdetr_slurm.engine.training.checkpoint import load_checkpoint
from rtdetr_slurm.runs.status import read_status
from rtdetr_slurm.spec import load_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def on_rank(context: Context, spec: Path, overrides: list[str], said: Path) -> None:
    """What is said goes to a file: the server that forks ranks keeps its first test's stdout."""
    with (said / f"rank{context.rank}").open("w") as output, redirect_stdout(output):
        distill(session_of(load_spec(spec, overrides, action="distill"), context))


def test_two_ranks_hold_one_student(workspace: Workspace, tmp_path: Path) -> None:
    """With projectors that they have both learned, too, or their weights would part."""
    teacher = write_teacher(workspace)
    bindings = [*BINDINGS, BINDINGS[0] | {"criterion": "L2"}]
    overrides = [
        f"distill.pretrained_teacher_model_path={teacher}",
        f"distill.bindings={json.dumps(bindings)}",
        "train.num_gpus=2",
        "train.gpu_ids=[0,1]",
        "dataset.batch_size=2",
    ]
    run_ranks(on_rank, workspace.spec_file(), overrides, tmp_path)
    assert "2 ranks hold equal weights (spread 0)" in (tmp_path / "rank0").read_text()
    lines = read_status(workspace.results / "distill" / "status.json")
    assert [line["epoch"] for line in lines if "kpi" in line] == [0, 1]
    saved = load_checkpoint(workspace.results / "distill" / "model_epoch_001.pth")
    assert len(saved["rng"]) == 2
    assert not any("teacher" in name for name in saved["model"])
