"""A worker of a search, with an engine that takes no time in place of the step."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from launch_support import local_stage, make_run, write_checkpoint
from search_support import searching_run
from stage_run_support import ShellAllocation, quick  # noqa: F401

from rtdetr_slurm.automl import worker
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.leases import take
from rtdetr_slurm.automl.policy import asked_of
from rtdetr_slurm.automl.study import Study, create_study, open_study
from rtdetr_slurm.automl.worker import Worker
from rtdetr_slurm.contract import ExitCode, FailureClass, Status
from rtdetr_slurm.launch.allocation import Standing
from rtdetr_slurm.launch.step import Step, StepEnd, StopRequest
from rtdetr_slurm.plan.chain import Parent, ParentStage
from rtdetr_slurm.plan.make import frozen_spec, make_plan
from rtdetr_slurm.plan.model import Input, Origin, Stage, StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.checkpoints import RESUME_FIELD, list_checkpoints
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import recorded_end, task_events
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.site.discover import local_site
from rtdetr_slurm.spec import load_spec

BEFORE, AFTER = "train-20260102-030405-0001", "train-20260102-030405-0002"

Behave = Callable[[Step, StatusLog], StepEnd | None]
"""What the engine does before its first epoch: it ends like this, or goes on."""


class Engine:
    """Trains three epochs, and writes what the real one would."""

    def __init__(self) -> None:
        self.behave: Behave = lambda _step, _status: None
        self.is_deaf = False
        self.started: list[tuple[int, bool]] = []
        self.stop_after: tuple[int, Callable[[StopRequest], None]] | None = None

    def execute(self, step: Step, stop: StopRequest, *_: Any, **how: Any) -> StepEnd:
        task = step.task
        assert task.trial is not None
        self.started.append((task.trial, step.resume))
        folder, status = task.results_dir, StatusLog(task.results_dir / "status.json", step.start)
        status.write(Status.STARTED)
        if (end := self.behave(step, status)) is not None:
            return end
        begun = list_checkpoints(folder)
        spec = yaml.safe_load(step.run.task_spec(task).read_text())
        for epoch in range(begun[-1].epoch + 1 if begun else 0, spec["train"]["num_epochs"]):
            write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
            score = [0.1, 0.3, 0.2][epoch] + spec["train"]["optim"]["lr"]
            status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": score})
            if self.stop_after is not None and self.stop_after[0] == epoch:
                self.stop_after[1](stop)
            if not how["wanted"]() and not self.is_deaf:
                return StepEnd(ExitCode.INTERRUPTED, FailureClass.CANCELLED)
            if stop.signum is not None:
                status.write(Status.PREEMPTED, "stopped")
                return StepEnd(ExitCode.INTERRUPTED, FailureClass.PREEMPTED)
        status.write(Status.SUCCESS)
        return StepEnd(ExitCode.OK)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine()
    monkeypatch.setattr(
        Step, "execute", lambda step, stop, *args, **how: made.execute(step, stop, *args, **how)
    )
    monkeypatch.setattr(worker, "_JITTER_S", 0.0)
    return made


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return a_run(tmp_path)


def a_run(root: Path, **changes: Any) -> Run:
    made = searching_run(root, **changes)
    create_study(search_of(made))
    return made


def stage_of(run: Run) -> Stage:
    stage, results = run.plan.stage("train"), Input("train.results_dir", "output_dir")
    return replace(stage, launch=replace(stage.launch, requeue=True), inputs=(results,))


def search_of(run: Run) -> Search:
    search = run.plan.stage("train").search
    assert search is not None
    return search


class Node(ShellAllocation):
    """A worker's job; other jobs stand as told."""

    def __init__(self, run: Run, index: int, standing: Mapping[str, Standing] = {}) -> None:
        super().__init__("")
        self.task = StageTask(stage_of(run), index)
        self.job_id = f"77_{index}"
        self.others = standing
        self.dismissed = 0

    def dismiss_waiting(self) -> None:
        self.dismissed += 1

    def standing(self, job_ids: Any, /) -> dict[str, Standing]:
        return {i: self.others[i] for i in job_ids if i in self.others}


def start(
    run: Run, index: int = 0, standing: Mapping[str, Standing] = {}, restart: int = 0
) -> tuple[int, Node]:
    """One start of a worker: its exit code."""
    node = Node(run, index, standing)
    node.restart = restart
    return Worker(run, node, StopRequest({}), search_of(run)).execute(), node


def trials(run: Run) -> dict[int, TrialRecord]:
    return {trial.number: trial for trial in open_study(search_of(run)).trials()}


def told(run: Run, event: str) -> list[dict[str, Any]]:
    return [dict(one) for one in run.events() if one["event"] == event]


def test_every_trial_is_trained_once_in_a_folder_of_its_own(run: Run, engine: Engine) -> None:
    code, _ = start(run)
    assert code == 0
    assert engine.started == [(0, False), (1, False), (2, False)]
    found = trials(run)
    assert {trial.state for trial in found.values()} == {TrialState.COMPLETE}
    for number, trial in found.items():
        task = StageTask(stage_of(run), 0, number)
        spec = yaml.safe_load(run.task_spec(task).read_text())
        assert spec["train"]["optim"]["lr"] == trial.values["train.optim.lr"]
        assert spec["train"]["results_dir"] == str(task.results_dir)
        assert [c.epoch for c in list_checkpoints(task.results_dir)] == [1, 2], "best and last"
        assert trial.best_epoch == 1
        assert trial.facts["starts"] == 1
        assert trial.facts["gpu_hours"] > 0
    assert found[0].values["train.optim.lr"] == run.spec["train"]["optim"]["lr"]
    [end] = [e for e in told(run, "finished") if "stage" in e]
    assert (end["state"], end["task"]) == ("success", 0)
    assert "3 trials have ended here" in end["reason"]


def test_two_workers_never_train_the_same_trial(tmp_path: Path, engine: Engine) -> None:
    run = a_run(tmp_path, trials=12)
    nodes = [Node(run, index) for index in range(2)]
    workers = [Worker(run, node, StopRequest({}), search_of(run)) for node in nodes]
    threads = [threading.Thread(target=one.execute) for one in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for number, _ in engine.started) == list(range(12))
    assert {trial.state for trial in trials(run).values()} == {TrialState.COMPLETE}


def fails(failure: FailureClass, reason: str = "because") -> Behave:
    def behave(_step: Step, status: StatusLog) -> StepEnd:
        status.fail(failure, reason)
        return StepEnd(ExitCode.FAILED)

    return behave


def test_a_failed_trial_is_recorded_with_its_reason_and_the_next_begins(
    run: Run, engine: Engine
) -> None:
    engine.behave = lambda step, status: (
        fails(FailureClass.OOM_GPU, "CUDA out of memory")(step, status)
        if step.task.trial == 1
        else None
    )
    assert start(run)[0] == 0
    found = trials(run)
    assert [found[number].state for number in range(3)] == [
        TrialState.COMPLETE,
        TrialState.FAILED,
        TrialState.COMPLETE,
    ]
    assert found[1].failure == ("oom_gpu", "CUDA out of memory")
    [end] = [e for e in told(run, "finished") if e.get("trial") == 1]
    assert (end["state"], end["failure_class"]) == ("failed", "oom_gpu")


def test_three_trials_that_fail_by_what_is_asked_end_the_search(
    tmp_path: Path, engine: Engine
) -> None:
    run = a_run(tmp_path, trials=8)
    engine.behave = fails(FailureClass.CONFIG, "no such class")
    assert start(run)[0] == 0
    assert [number for number, _ in engine.started] == [0, 1, 2]
    [stopping] = told(run, "stopping")
    assert (
        "3 trials in a row have failed, the last one: trial 2: no such class"
        in (stopping["reason"])
    )
    [end] = [e for e in told(run, "finished") if "stage" in e]
    assert "no such class" in end["reason"]
    assert start(run, 1)[0] == 0
    assert len(engine.started) == 3, "another worker begins none either"


def test_what_the_cluster_fails_is_tried_once_more(run: Run, engine: Engine) -> None:
    """Where the job goes back to the queue for it, the trial waits for it there."""
    lost = [True, True, True]

    def behave(step: Step, status: StatusLog) -> StepEnd | None:
        if step.task.trial == 0 and lost and lost.pop():
            return fails(FailureClass.INFRA, "NCCL timeout")(step, status)
        return None

    engine.behave = behave
    code, node = start(run)
    assert (code, node.requeued) == (75, 1)
    assert trials(run)[0].state is TrialState.RUNNING
    code, node = start(run, restart=1)
    assert (code, node.requeued) == (75, 1)
    assert trials(run)[0].failure == ("infra", "NCCL timeout")
    assert start(run, restart=2)[0] == 0
    assert [number for number, _ in engine.started] == [0, 0, 1, 2]


def test_a_trial_that_is_interrupted_goes_on_in_the_next_start(run: Run, engine: Engine) -> None:
    engine.stop_after = (0, lambda stop: setattr(stop, "signum", 10))
    code, node = start(run)
    assert (code, node.requeued) == (75, 1)
    engine.stop_after = None
    assert start(run, restart=1)[0] == 0
    assert engine.started == [(0, False), (0, True), (1, False), (2, False)]
    found = trials(run)[0]
    assert (found.state, found.facts["starts"]) == (TrialState.COMPLETE, 2)
    assert sorted(found.curve) == [0, 1, 2]
    [paused] = [e for e in told(run, "requeued") if "trial" in e]
    assert (paused["failure_class"], paused["restart"]) == ("preempted", 0)


@pytest.mark.parametrize("standing", [Standing.ENDED, Standing.WAITS, Standing.RUNS])
def test_a_trial_of_a_worker_that_is_gone_is_gone_on_with(
    run: Run, engine: Engine, standing: Standing
) -> None:
    """One that waits in the queue keeps its trial as long as there is something else to do."""
    study = open_study(search_of(run))
    taken = study.take()
    assert taken is not None
    lost = StageTask(stage_of(run), 1, taken.number)
    assert take(run, lost, 0, "77_1")
    lost.results_dir.mkdir(parents=True)
    assert start(run, 0, {"77_1": standing})[0] == 0
    order = {Standing.ENDED: [0, 1, 2], Standing.WAITS: [1, 2, 0], Standing.RUNS: [1, 2]}
    assert [number for number, _ in engine.started] == order[standing]


def test_no_trial_begins_once_the_search_is_stopped(run: Run, engine: Engine) -> None:
    run.record("stopping", search="train", reason="enough")
    assert start(run)[0] == 0
    assert engine.started == []
    run.record("going_on", search="train")
    assert start(run, restart=1)[0] == 0
    assert len(engine.started) == 3


def test_what_has_begun_is_trained_to_its_end_all_the_same(run: Run, engine: Engine) -> None:
    engine.stop_after = (1, lambda stop: stop._note(15, None))
    node = start(run)[1]
    assert node.requeued == 1
    engine.stop_after = None
    run.record("stopping", search="train", reason="enough")
    assert start(run, restart=1)[0] == 0
    assert engine.started == [(0, False), (0, True)]
    assert trials(run)[0].state is TrialState.COMPLETE


def test_workers_that_wait_are_not_waited_for(run: Run, engine: Engine) -> None:
    """Once nothing is left for them; and a worker that has begun says itself how it ends."""
    waits = {"77_1": Standing.WAITS}
    study = open_study(search_of(run))
    taken = study.take()
    assert taken is not None
    assert take(run, StageTask(stage_of(run), 1, taken.number), 0, "77_1")
    run.record("stopping", search="train", reason="enough")
    code, node = start(run, 0, {"77_1": Standing.RUNS})
    assert (code, node.dismissed) == (0, 0), "a trial runs"
    study.prune(taken.number, {})
    code, node = start(run, 0, waits, restart=1)
    assert (code, node.dismissed) == (0, 1)
    [end] = [e for e in told(run, "finished") if e.get("task") == 1]
    assert (end["state"], end["job_id"], end["restart"]) == ("success", "77_1", 0)
    run.record("finished", stage="train", task=1, job_id="77_1", restart=0, state="failed",
               failure_class="infra", reason="")  # fmt: skip
    found = recorded_end(task_events(run.events(), StageTask(stage_of(run), 1)))
    assert found is not None
    assert found["state"] == "failed"


def test_a_trial_that_is_not_worth_it_is_stopped_and_the_worker_goes_on(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rtdetr_slurm.automl.study.Study.report",
        lambda _self, number, epoch, _kpis: not (number == 1 and epoch == 0),
    )
    monkeypatch.setattr("rtdetr_slurm.automl.trial.TrialStart._scored", lambda _self: True)
    assert start(run)[0] == 0
    assert [number for number, _ in engine.started] == [0, 1, 2]
    assert trials(run)[1].state is TrialState.PRUNED
    lines = (StageTask(stage_of(run), 0, 1).results_dir / "status.json").read_text().splitlines()
    assert "stopped by the search after epoch 0" in lines[-1]


def test_a_trial_that_ends_before_it_can_be_stopped_is_complete(
    run: Run, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is to go on with what has all its epochs."""
    report = Study.report
    monkeypatch.setattr(Study, "report", lambda *told: report(*told) and False)
    engine.is_deaf = True
    assert start(run)[0] == 0
    assert {trial.state for trial in trials(run).values()} == {TrialState.COMPLETE}


def test_a_trial_has_all_else_as_the_user_asks_for_it(tmp_path: Path, engine: Engine) -> None:
    """Data, other fields, output folder, nodes and GPUs, and the checkpoint of the parent."""
    before = make_run(tmp_path / "before", local_stage(tmp_path / "before" / "out"), run_id=BEFORE)
    checkpoint = tmp_path / "before" / "out" / "model_epoch_000.pth"
    checkpoint.parent.mkdir(parents=True)
    write_checkpoint(checkpoint)
    path = tmp_path / "train.yaml"
    path.write_text(
        "dataset:\n"
        "  train_data_sources: [{image_dir: /d/a, json_file: /d/a.json}]\n"
        "  val_data_sources: {image_dir: /d/b, json_file: /d/b.json}\n"
        f"train: {{num_epochs: 3, num_gpus: 2, results_dir: {tmp_path}/mine, seed: 7}}\n"
        "automl: {trials: 2, parameters: [train.optim.lr], algorithm: random}\n"
        f"job: {{parent: {before.path}}}\n"
    )
    loaded, site = load_spec(path, ["automl_policy=on"]), local_site()
    frozen = frozen_spec(loaded, run_dir=tmp_path / "runs" / AFTER, cwd=tmp_path)
    searching = asked_of(loaded, frozen, site).searching
    assert searching is not None
    parent = Parent("", [ParentStage(Origin("train", str(before.path)), "checkpoint", True)], {})
    plan = make_plan(
        loaded, frozen, site, run_dir=tmp_path / "runs" / AFTER, parent=parent, searching=searching
    )
    made = make_run(tmp_path / "runs", *plan.stages, run_id=AFTER, spec=frozen)
    create_study(searching.search)
    node = ShellAllocation("")
    node.task = plan.stage("train").tasks()[0]
    assert Worker(made, node, StopRequest({}), searching.search).execute() == 0
    rates = set()
    for number in (0, 1):
        task = replace(node.task, trial=number)
        assert task.results_dir == tmp_path / "mine" / "automl" / "trials" / str(number) / "train"
        spec = yaml.safe_load(made.task_spec(task).read_text())
        rates.add(spec["train"]["optim"].pop("lr"))
        own = {"results_dir": str(task.results_dir), RESUME_FIELD.split(".")[1]: str(checkpoint)}
        assert own.items() <= spec["train"].items()
        wanted = copy.deepcopy(frozen)
        wanted["train"]["optim"].pop("lr")
        wanted["train"] |= own
        assert spec == wanted
        assert task.stage.resources.gpu_ids == (0, 1)
    assert len(rates) == 2
