"""A run that searches, and what its trials leave, without a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from launch_support import STAGE, local_stage, make_run, write_checkpoint

from rtdetr_slurm.contract import Status
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import Array, Dependency, Input, Origin, Stage, StageTask
from rtdetr_slurm.plan.search import Objective, Parameter, Search
from rtdetr_slurm.runs.best import Best, keep_best
from rtdetr_slurm.runs.claim import claim_id, new_claim, take
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.status import StatusLog

SPACE = (
    Parameter("train.optim.lr", "float", 1e-4, low=1e-5, high=1e-2, log=True),
    Parameter("model.num_queries", "int", 300, low=50, high=300),
)
MODEL = Input("evaluate.checkpoint", "parent_model", Origin("best"))


def search_in(folder: Path, **changes: Any) -> Search:
    """A search of three trials of three epochs."""
    plain = Search(
        folder=str(folder),
        algorithm="random",
        seed=1,
        space=SPACE,
        objectives=(Objective("val_mAP", "maximize"),),
        trials=3,
        epochs=3,
    )
    return replace(plain, **changes)


def searching(folder: Path, **changes: Any) -> Stage:
    """The workers alone, two of them, each with two GPUs on two nodes of a cluster."""
    workers = str(folder / "automl" / "workers")
    search = search_in(folder / "automl", **{"trials": 4, **changes})
    return replace(STAGE, results_dir=workers, array=Array(2), search=search, container=None)


def searching_stages(root: Path, **changes: Any) -> list[Stage]:
    """The stages of a search: its workers, what finds the best, and what scores that."""
    plain = local_stage(root / "results" / "automl" / "workers")
    search = search_in(root / "results" / "automl", **changes)
    after = (Dependency(Origin("train"), "afterany"),)
    best = replace(plain, name="best", results_dir=search.folder, depends_on=after)
    evaluate = replace(
        plain,
        name="evaluate_best",
        action="evaluate",
        results_dir=str(root / "results" / "evaluate_best"),
        depends_on=(Dependency(Origin("best")),),
        inputs=(MODEL,),
    )
    return [
        replace(plain, array=Array(2), search=search),
        replace(best, best_of="train"),
        evaluate,
    ]


SPEC = {"train": {"optim": {"lr": 1e-4}, "num_epochs": 3}, "evaluate": {"checkpoint": ""}}


def searching_run(
    root: Path,
    run_id: str = "train-20260102-030405-abcd",
    spec: Mapping[str, Any] = SPEC,
    **changes: Any,
) -> Run:
    """The run folder of a search, which has no trials yet."""
    stages = searching_stages(root / run_id, **changes)
    return make_run(root, *stages, run_id=run_id, spec=spec)


def lay_out_trial(run: Run, number: int, curve: Mapping[int, float]) -> Path:
    """The results folder of a trial that was scored at some epochs, with a checkpoint of each."""
    task = StageTask(run.plan.stage("train"), trial=number)
    folder = task.results_dir
    folder.mkdir(parents=True)
    claim = new_claim(claim_id(run.id, task.name), run_dir=str(run.path), stage=task.name)
    take(folder, replace(claim, continues=True))
    status = StatusLog(folder / "status.json")
    for epoch, value in curve.items():
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth", f"{number}-{epoch}")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": value})
    status.write(Status.SUCCESS, "done")
    return folder


def choose(run: Run, trial: int, epoch: int, **values: Any) -> Best:
    """best.json of a trial that was laid out."""
    folder = StageTask(run.plan.stage("train"), trial=trial).results_dir
    name = f"model_epoch_{epoch:03d}.pth"
    best = Best(trial, "train", epoch, name, sha256_of(folder / name), "val_mAP", 0.5, values)
    search = run.plan.stage("train").search
    assert search is not None
    keep_best(search, best)
    return best
