"""What the tests of site, plan, runs, launch and slurm share: stages, runs and small data sets."""

from __future__ import annotations

import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rtdetr_slurm.contract import LAUNCH_VERSION
from rtdetr_slurm.plan.model import (
    Bind,
    Container,
    Dependency,
    Image,
    Launch,
    Origin,
    Plan,
    Resources,
    Stage,
    StageTask,
)
from rtdetr_slurm.runs.claim import Claim, claim_id, new_claim, take
from rtdetr_slurm.runs.images import ImageRecord
from rtdetr_slurm.runs.run import Manifest, Run, create_run, freeze_spec

STAGE = Stage(
    name="train",
    action="train",
    resources=Resources(
        nodes=2,
        gpu_ids=(0, 1),
        gpu_request="gpus-per-node",
        cpus_per_task=8,
        mem_gb=64,
        time_min=90,
        partition="gpu",
    ),
    launch=Launch(scheduler="slurm", accelerator="cuda", signal_lead_s=120, requeue=True),
    container=Container(Image("/images/train.sif"), (Bind("/data", "/data", read_only=True),)),
    command=("rtdetr", "train", "-e", "spec.yaml"),
    results_dir="/runs/r/results/train",
)

EVALUATE = replace(
    STAGE,
    name="evaluate",
    action="evaluate",
    results_dir="/runs/r/results/evaluate",
    depends_on=(Dependency(Origin("train")),),
)
"""What comes after STAGE in a chain."""


def local_stage(results_dir: Path) -> Stage:
    """A stage of the local site: one node, no container."""
    return replace(
        STAGE,
        resources=Resources(nodes=1, gpu_ids=(0,)),
        launch=Launch(scheduler="local", accelerator=None, signal_lead_s=60, requeue=False),
        container=None,
        results_dir=str(results_dir),
    )


def make_run(
    root: Path, *stages: Stage, run_id: str = "train-20260102-030405-abcd", spec: Any = None
) -> Run:
    """A run folder as `submit` makes it; what STAGE has in its run folder is in this one."""
    at = str(root / run_id)
    stages = tuple(replace(s, results_dir=s.results_dir.replace("/runs/r", at)) for s in stages)
    paths = {stage.container.image.path for stage in stages if stage.container is not None}
    manifest = Manifest(
        name=None,
        action=stages[0].action,
        created="2026-01-02T03:04:05+00:00",
        user="someone",
        parent=None,
        package_version="1.2.3",
        spec=freeze_spec("/home/someone/train.yaml", [], spec or {"train": {}}),
        images={path: ImageRecord(path, 7, "0" * 64) for path in paths},
        site={"name": "here"},
        site_sources=(),
        plan=Plan(stages),
        run_id=run_id,
        launch_version=LAUNCH_VERSION,
    )
    run = create_run(root / run_id, manifest)
    for stage in stages:
        run.job_dir(stage.name).mkdir()
    return run


def claim_results(run: Run, task: StageTask, **facts: Any) -> Claim:
    """Claim a task's results folder, as `submit` does; with `restart`, as a start of it does."""
    task.results_dir.mkdir(parents=True, exist_ok=True)
    mine = new_claim(claim_id(run.id, task.name), run_dir=str(run.path), stage=task.name, **facts)
    take(task.results_dir, mine)
    return mine


def write_checkpoint(path: Path, content: str = "weights") -> Path:
    """A zip file with the layout of a torch checkpoint."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/data/0", content * 1000)
    return path


def write_own(path: Path, **content: Any) -> Path:
    """A checkpoint of this engine, as far as can be seen without torch."""
    with zipfile.ZipFile(path, "w") as archive:
        own = {"tao_model": "rtdetr", **content}
        archive.writestr("archive/data.pkl", pickle.dumps(own, 2))
    return path


SCORED = "dataset.test_data_sources={image_dir: data/images, json_file: data/coco.json}"
"""What `evaluate` scores, of `write_dataset("data")`."""


def write_dataset(folder: Path) -> Path:
    """A COCO data set that `submit` accepts, of 64 images; returns a train spec that uses it."""
    (folder / "images").mkdir(parents=True)
    names = [f"{number}.jpg" for number in range(1, 65)]
    coco = {
        "images": [
            {"id": number, "file_name": name, "width": 8, "height": 8}
            for number, name in enumerate(names, start=1)
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 1, "name": "thing"}],
    }
    for name in names:
        (folder / "images" / name).touch()
    (folder / "coco.json").write_text(json.dumps(coco))
    spec = folder / "train.yaml"
    spec.write_text(
        "dataset:\n"
        "  num_classes: 2\n"
        "  train_data_sources:\n"
        f"    - image_dir: {folder}/images\n"
        f"      json_file: {folder}/coco.json\n"
        "train:\n"
        "  num_epochs: 1\n"
    )
    return spec
