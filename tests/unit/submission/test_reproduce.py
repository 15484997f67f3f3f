"""What a run that does the same again is made of, and what cannot be run again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, make_run, write_own

from rtdetr_slurm.contract import Env, Infer
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Array, Bind, Input, Origin, Stage
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission.reproduce import Finished, finished_training, reproduction

NEW = Path("/runs/train-20270101-000000-0123")


def finished(run: Run, stage: Stage) -> Finished:
    checkpoint = write_own(run.path / "model_epoch_000.pth", seed=99)
    return Finished(run, run.plan.stage(stage.name), checkpoint)


def test_the_training_alone_with_the_inputs_that_it_had(tmp_path: Path) -> None:
    """They are not looked for again: the run that they come from may have gone on."""
    own = Input("train.results_dir", Infer.OUTPUT_DIR)
    parents = Input(
        "train.pretrained_model_path",
        Infer.PTM_IF_NO_RESUME_MODEL,
        Origin("train", str(tmp_path / "parent")),
    )
    stage = replace(STAGE, inputs=(own, parents))
    stage = replace(
        stage,
        container=replace(
            STAGE.container, binds=(Bind("/runs/r", "/runs/r"), Bind("/data", "/data"))
        ),
    )
    spec: dict[str, Any] = {
        "results_dir": "/elsewhere",
        "train": {"results_dir": "", "seed": 7, "num_epochs": 3, "pretrained_model_path": ""},
    }
    run = make_run(tmp_path, stage, EVALUATE, spec=spec)
    for value in ("/parent/model_epoch_001.pth", "/parent/model_epoch_003.pth"):
        inputs = [
            {"field": "train.results_dir", "value": "/elsewhere/train"},
            {"field": "train.pretrained_model_path", "value": value},
        ]
        run.record("resolved", stage="train", job_id="1", restart=0, inputs=inputs)
    made = reproduction(finished(run, stage), NEW)
    assert made.spec.resolved == {
        "results_dir": f"{NEW}/results",
        "train": spec["train"] | {"pretrained_model_path": "/parent/model_epoch_003.pth"},
    }
    [again] = made.plan.stages
    assert again == replace(stage, inputs=(own,), results_dir=f"{NEW}/results/train", depends_on=())
    assert (made.run_id, made.images) == (NEW.name, run.manifest.images)


def test_a_drawn_seed_is_the_checkpoints(tmp_path: Path) -> None:
    own = f"{tmp_path}/own"
    spec = {"results_dir": "/elsewhere", "train": {"results_dir": own, "seed": -1}}
    run = make_run(tmp_path, replace(STAGE, results_dir=own), spec=spec)
    made = reproduction(finished(run, STAGE), NEW)
    results = f"{NEW}/results"
    assert made.spec.resolved == {
        "results_dir": results,
        "train": {"results_dir": f"{results}/train", "seed": 99},
    }


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (EVALUATE, "has trained nothing: only a training is run again"),
        (replace(STAGE, array=Array(3)), "is a search, whose trials depend on what was ready when"),
        (replace(STAGE, launch=replace(STAGE.launch, engine="tao")), "by NVIDIA TAO's image"),
        (replace(STAGE, launch=replace(STAGE.launch, secrets=(Env.ENCRYPTION_KEY,))),
         "encrypts its model files, of which no two are alike"),
        (STAGE, "train is unknown; allowed: a training that has ended with success"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_again(tmp_path: Path, stage: Stage, message: str) -> None:
    run = make_run(tmp_path, replace(stage, depends_on=()))
    with pytest.raises(RequestError, match=message):
        finished_training(run)
