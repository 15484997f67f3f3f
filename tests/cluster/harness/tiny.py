"""Runs that cost nothing to make: the record, the scripts and the queue are real, the work is none.

For tests of what is sent to Slurm, hundreds of times, while the queue is held.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import LAUNCH_VERSION
from rtdetr_slurm.plan.model import Dependency, Launch, Origin, Plan, Resources, Stage
from rtdetr_slurm.runs.run import Manifest, Run, create_run, freeze_spec

from .slurm_conf import TRAIN

_NOTHING = ("true",)


def tiny_run(root: Path, run_id: str, spec: Any = None, *, chain: bool = True) -> Run:
    """A run folder with a training and, where it is a chain, its evaluation, on one node each."""
    folder = root / run_id
    train = Stage(
        name="train",
        action="train",
        resources=Resources(nodes=1, gpu_ids=(), time_min=5, partition=TRAIN),
        launch=Launch(scheduler="slurm", accelerator="cpu", signal_lead_s=60, requeue=True),
        container=None,
        command=_NOTHING,
        results_dir=str(folder / "results" / "train"),
    )
    evaluate = Stage(
        name="evaluate",
        action="evaluate",
        resources=train.resources,
        launch=train.launch,
        container=None,
        command=_NOTHING,
        results_dir=str(folder / "results" / "evaluate"),
        depends_on=(Dependency(Origin("train")),),
    )
    manifest = Manifest(
        name=None,
        action="train",
        created="2026-01-02T03:04:05+00:00",
        user="someone",
        parent=None,
        package_version="1.2.3",
        spec=freeze_spec("/home/someone/train.yaml", [], spec or {"run": run_id}),
        images={},
        site={"name": "test-cluster"},
        site_sources=(),
        plan=Plan((train, evaluate) if chain else (train,)),
        run_id=run_id,
        launch_version=LAUNCH_VERSION,
    )
    return create_run(folder, manifest)
