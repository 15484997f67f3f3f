"""What a search has chosen, and what is taken of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest
from launch_support import write_checkpoint
from search_support import MODEL, choose, lay_out_trial, searching_run

from rtdetr_slurm.contract import BEST_JSON
from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.plan.model import Input, Origin, StageTask
from rtdetr_slurm.records import BadRecord
from rtdetr_slurm.runs.best import read_best, values_before
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.inference import infer
from rtdetr_slurm.runs.lineage import lineage_of
from rtdetr_slurm.runs.live import STARTING, Live, StartTimes, write_live
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.trials import searching_stage
from rtdetr_slurm.slurm.answers import JobInfo


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two trials with files of the same names."""
    run = searching_run(tmp_path)
    lay_out_trial(run, 0, {0: 0.1, 1: 0.3, 2: 0.2})
    lay_out_trial(run, 1, {0: 0.4, 1: 0.5, 2: 0.45})
    return run


def test_the_model_of_a_search_is_the_chosen_checkpoint(run: Run) -> None:
    [task] = run.plan.stage("evaluate_best").tasks()
    with pytest.raises(RequestError, match=r"best of run .* has chosen no trial"):
        infer(run, task, MODEL)
    # The finaliser may pass over the highest score, so that nobody chooses a second time.
    choose(run, trial=1, epoch=0)
    folder = searching_stage(run)[1].trials_folder / "1" / "train"
    found = infer(run, task, MODEL)
    assert found.path == folder / "model_epoch_000.pth"
    assert found.about == "trial 1, epoch 0, val_mAP 0.5000"
    for choice, name in (("best", "000"), ("last", "002"), ("epoch:1", "001")):
        other = infer(run, task, replace(MODEL, choice=choice))
        assert other.path == folder / f"model_epoch_{name}.pth"
    resumed = Input("train.resume_training_checkpoint_path", "resume_model", Origin("best"))
    assert infer(run, task, resumed).path == folder / "model_epoch_002.pth"


def test_a_checkpoint_that_has_changed_since_is_not_taken(run: Run) -> None:
    [task] = run.plan.stage("evaluate_best").tasks()
    choose(run, trial=1, epoch=1)
    path = infer(run, task, MODEL).path
    write_checkpoint(path, "others")
    with pytest.raises(RequestError, match=r"model_epoch_001.pth is not what best\.json .*about"):
        infer(run, task, MODEL)
    path.unlink()
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        infer(run, task, MODEL)


def test_what_comes_after_a_search_has_the_values_of_the_best_trial(run: Run) -> None:
    values = {"model.num_queries": 60, "train.optim.lr": 0.002}
    choose(run, trial=1, epoch=1, **values)
    stages = run.plan.stages
    assert values_before(run, stages[2]) == values
    for stage in stages[:2]:
        assert values_before(run, stage) == {}
    # A model that the user names himself has nothing to do with the search.
    assert values_before(run, replace(stages[2], inputs=())) == {}


def test_a_record_that_cannot_be_read(run: Run) -> None:
    _, search = searching_stage(run)
    assert read_best(search) is None
    choose(run, trial=1, epoch=1)
    path = search.path / BEST_JSON
    content = json.loads(path.read_text())
    for change, said in (
        ({"checkpoint": "../../secret.pth"}, "is no checkpoint's name"),
        ({"trial": -1}, "expected 0 or more"),
        ({"value": "high"}, "value: found"),
    ):
        path.write_text(json.dumps(content | change))
        with pytest.raises(BadRecord, match=said):
            read_best(search)
    path.write_text(json.dumps(content | {"schema_version": 99}))
    with pytest.raises(NewerVersion):
        read_best(search)


def test_status_and_verify_know_whose_checkpoint_it_is(run: Run) -> None:
    best = choose(run, trial=1, epoch=1)
    folder = searching_stage(run)[1].trials_folder
    recorded = {"file": best.checkpoint, "epoch": 1, "metric": 0.5, "sha256": best.sha256}
    end = {"stage": "best", "trial": 1, "state": "success", "checkpoints": {"best": recorded}}
    run.record("finished", **end)
    [_, _, found, _] = report_run(run, {}, run.events()).stages
    assert found.results.best == folder / "1" / "train" / "model_epoch_001.pth"
    assert found.results.best_metric == 0.5
    chosen, namesake = (folder / str(n) / "train" / "model_epoch_001.pth" for n in (1, 0))
    assert sha256_of(chosen) != sha256_of(namesake)
    assert "checkpoint" in [link.what for link in lineage_of(chosen).links]
    # The same name in another trial is another file.
    assert lineage_of(namesake).broken == []
    write_checkpoint(chosen, "others")
    assert [link.what for link in lineage_of(chosen).broken] == ["checkpoint"]


def test_status_tells_which_trial_a_worker_trains(run: Run) -> None:
    workers = run.plan.stage("train").tasks()
    pid = str(os.getpid())
    facts = {"job_id": pid, **process_facts(pid)}
    run.record("submitted", stage="train", **facts)
    for worker in workers:
        assert worker.index is not None
        run.record("started", stage="train", task=worker.index, pid=os.getpid(), **facts)
        trial = StageTask(worker.stage, worker.index, worker.index)
        run.record("started", **trial.event_facts(pid), restart=0)
    start = StartTimes(0, datetime.now(timezone.utc).isoformat(), dict.fromkeys(STARTING, 0.0))
    live = Live(claim_id(run.id, trial.name), "cpu", "stepping", start, epoch=1, epochs=3)
    write_live(trial.results_dir, live)
    run.record("requeued", **StageTask(worker.stage, 0, 0).event_facts(pid), restart=0)
    jobs = {worker.name: JobInfo(pid, "RUNNING") for worker in workers}
    [idle, busy, *_] = report_run(run, jobs, run.events()).stages
    assert (idle.detail, idle.live) == ("", None)
    assert (busy.detail, busy.live) == ("trial 1", live)
