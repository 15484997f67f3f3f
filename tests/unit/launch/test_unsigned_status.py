"""A start whose action does not sign its status lines, as TAO's and our older images' do not."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch_support import write_checkpoint
from stage_run_support import ShellAllocation, ends, execute, line, quick, run, stage  # noqa: F401

from rtdetr_slurm.plan.model import Container, Image, Stage
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.images import ImageRecord
from rtdetr_slurm.runs.run import Run, freeze_spec

# ruff: noqa: F811  (pytest fixtures are arguments of the name they are imported by)


def unsigned(**line: Any) -> str:
    """Shell text that appends a status line that does not say whose it is."""
    return f"echo {shlex.quote(json.dumps(line))} >> {{status}}"


FINISHED = unsigned(status="RUNNING", message="Train finished successfully.")


def test_taos_own_words_decide_and_ours_are_the_last(run: Run, stage: Stage) -> None:
    stage = replace(stage, launch=replace(stage.launch, engine="tao"))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    began = f"touch {shlex.quote(str(run.job_dir('train')))}/node-0/started"
    assert execute(run, stage, ShellAllocation(f"{began}; {FINISHED}")) == 0
    _, last = ends(run, stage)
    assert (last["status"], last["claim"]) == ("SUCCESS", claim_id(run.id, "train"))
    resolved = [event for event in run.events() if event["event"] == "resolved"]
    assert "model_epoch_000.pth" in str(resolved), "it is told where to go on"


def test_tao_is_not_believed_where_its_work_began_unguarded(run: Run, stage: Stage) -> None:
    stage = replace(stage, launch=replace(stage.launch, engine="tao"))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(FINISHED)) == 1
    assert "began past the program of rtdetr-slurm" in ends(run, stage)[1]["reason"]


def test_tao_is_not_believed_where_the_last_epoch_is_missing(run: Run, stage: Stage) -> None:
    stage = replace(stage, launch=replace(stage.launch, engine="tao"))
    spec = freeze_spec("/home/someone/train.yaml", [], {"train": {"num_epochs": 2}})
    run = replace(run, manifest=replace(run.manifest, spec=spec))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    began = f"touch {shlex.quote(str(run.job_dir('train')))}/node-0/started"
    assert execute(run, stage, ShellAllocation(f"{began}; {FINISHED}")) == 1
    assert "success, but its last checkpoint is model_epoch_000" in ends(run, stage)[1]["reason"]


def test_what_an_older_image_says_counts(run: Run, stage: Stage) -> None:
    """Its engine knows nothing of claims."""
    image = ImageRecord("/old.sif", 7, "0" * 64, version="0.0.1")
    run = replace(run, manifest=replace(run.manifest, images={"/old.sif": image}))
    stage = replace(stage, container=Container(Image("/old.sif"), ()))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    script = unsigned(status="SUCCESS", schema_version=1)
    assert execute(run, stage, ShellAllocation(script)) == 0
