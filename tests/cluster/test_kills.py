"""`submit`, `resume`, a stage's start, its requeue and the hand-over to the next stage, each killed
at every one of its writes: whoever comes next finds nothing lost, and nothing is sent twice."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from rtdetr_slurm.contract import ExitCode, FailureClass, Status
from rtdetr_slurm.launch.local_allocation import LocalAllocation
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import Step, StepEnd, StopRequest
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.report import report_run
from rtdetr_slurm.runs.run import Run, new_run_id, open_run, status_path
from rtdetr_slurm.runs.state import StageState, next_start, recorded_end, task_events
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.submission import reconcile
from rtdetr_slurm.submission.controller import controller_archive, write_controller
from rtdetr_slurm.submission.ends import complete_ends
from rtdetr_slurm.submission.resume import resume_run
from rtdetr_slurm.submission.submit import submit_run
from rtdetr_slurm.submission.twins import find_twin

from .harness import sent, slurm
from .harness.cli import held_queue
from .harness.kills import kills
from .harness.tiny import tiny_run

pytestmark = pytest.mark.cluster

ENDED = {"state": "failed", "failure_class": "timeout", "reason": "the time limit was over"}


@pytest.fixture
def held(cluster: slurm.Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(reconcile, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(reconcile, "LOOK_FOR_S", 0.2)
    controller_archive()  # once, and not in each child
    with held_queue(cluster):
        yield


# --- the login node ------------------------------------------------------------------------
def test_submit_is_killed_at_each_of_its_writes(held: None, tmp_path: Path) -> None:
    """A new submission is refused where anything was sent; `resume` sends what was not."""
    ids = iter(lambda: new_run_id("train"), None)
    at: list[Path] = []

    def new_run() -> Path:
        at.append(tmp_path / next(ids))
        return at[-1]

    def submit() -> None:
        run = tiny_run(tmp_path, at[-1].name)
        write_controller(run)
        submit_run(run)

    new_run()
    for number in kills(submit, tmp_path):
        folder, other = at[-1], new_run()
        if not (folder / "run.json").exists():
            continue
        run = open_run(folder)
        sent.check(run, wanted=False)
        there = any(sent.live(run).values())
        twin = find_twin(other, run.plan, run.spec, "test-cluster", complete=True)
        assert twin is None, "another spec"
        again = tiny_run(tmp_path, new_run_id("train"), spec=run.spec)
        refused = find_twin(again.path, again.plan, again.spec, "test-cluster", complete=True)
        assert refused is not None or not there, f"write {number}: it would be sent twice"
        sent.recover(run)
        sent.clear(run)


def test_resume_is_killed_at_each_of_its_writes(held: None, tmp_path: Path) -> None:
    run = tiny_run(tmp_path, new_run_id("train"))
    write_controller(run)
    submit_run(run)
    for _ in kills(lambda: resume_run(open_run(run.path)), tmp_path):
        sent.check(run, wanted=False)
        sent.recover(run)
        fail(run)


def fail(run: Run) -> None:
    """Have the training of a queued run fail, and its evaluation wait in vain."""
    task = StageTask(run.plan.stages[0])
    job = sent.live(run)["train"][0].job_id
    facts = {"stage": "train", "job_id": job, "restart": next_start(run.events(), "train") - 1}
    run.record("started", **facts)
    run.record("finished", **facts, **ENDED)
    assert recorded_end(task_events(run.events(), task)) is not None
    sent.clear(run)


# --- the compute node ----------------------------------------------------------------------
class Node(LocalAllocation):
    """A place to run in whose `requeue` leaves a file."""

    def __init__(self, run: Run, stage: str, restart: int) -> None:
        self.task = StageTask(run.plan.stage(stage))
        self.job_id, self.first, self.restart = "77", 0, restart
        self.back = run.path / "back"

    def requeue(self, exclude: Sequence[str] = (), /) -> None:
        self.back.touch()


def trains(self: Step, *_: object, **__: object) -> StepEnd:
    """What the engine leaves of an epoch; the first start is stopped in the middle of one."""
    task = self.allocation.task
    status = StatusLog(status_path(task), self.start)
    status.write(Status.STARTED)
    if task.stage.action == "evaluate":
        (task.results_dir / "metrics.json").write_text('{"metrics": {}, "schema_version": 1}')
        status.write(Status.SUCCESS)
        return StepEnd(ExitCode.OK)
    found = [*task.results_dir.glob("*.pth")]
    assert self.resume or not found, "it does not go on from what is there"
    if not found and (self.run.path / "interrupt").exists():
        checkpoint(task.results_dir / "interrupted_epoch_000_step_000003.pth")
        status.write(Status.PREEMPTED, "stopped")
        return StepEnd(ExitCode.INTERRUPTED, FailureClass.PREEMPTED)
    checkpoint(task.results_dir / "model_epoch_000.pth")
    status.write(Status.RUNNING, epoch=0, kpi={"val_mAP": 0.5})
    status.write(Status.SUCCESS)
    return StepEnd(ExitCode.OK)


def checkpoint(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "weights")


def start(run: Run, stage: str, restart: int) -> int:
    return StageRun(open_run(run.path), Node(run, stage, restart), StopRequest({})).execute()


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Step, "execute", trains)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def after_a_node_failed(run: Run, stage: str) -> None:
    """Slurm puts the job back by itself."""
    assert start(run, stage, next_start(run.events(), stage)) == ExitCode.OK


def after_the_job_failed(run: Run, stage: str) -> None:
    """Slurm calls it failed; the next `status` records that, and `resume` sends another job."""
    events = run.events()
    job = JobInfo("77", "FAILED", exit_code=ExitCode.INTERRUPTED)
    report = report_run(run, {stage: job}, events)
    complete_ends(run, report, events)
    first = next_start(run.events(), stage)
    ended = next(one for one in report.stages if one.name == stage)
    if ended.state is StageState.SUCCESS:
        return
    run.record("submitting", stage=stage, restart=first)
    assert start(run, stage, first) == ExitCode.OK


Recovery = Callable[[Run, str], None]


@pytest.mark.parametrize("recovery", [after_a_node_failed, after_the_job_failed])
@pytest.mark.parametrize("part", ["start", "requeue", "hand-over"])
def test_a_stage_is_killed_at_each_of_its_writes(
    engine: None, tmp_path: Path, part: str, recovery: Recovery
) -> None:
    stage = "evaluate" if part == "hand-over" else "train"
    runs = [prepared(tmp_path, part)]
    for number in kills(lambda: start(runs[-1], stage, 0), tmp_path):
        run = runs[-1]
        runs.append(prepared(tmp_path, part))
        task = StageTask(run.plan.stage(stage))
        (run.path / "interrupt").unlink(missing_ok=True)
        if (run.path / "back").exists():
            after_a_node_failed(run, stage)
        elif recorded_end(task_events(run.events(), task)) is None:
            recovery(run, stage)
        end = recorded_end(task_events(run.events(), task))
        assert end is not None, f"write {number}"
        assert end["state"] == "success", f"write {number}: {end}"
        last = StatusLog(status_path(task), Start(claim_id(run.id, stage)))
        assert last.path.read_text().rstrip().endswith("}")
        if stage == "evaluate":
            assert report_run(run, {}, run.events()).state is StageState.SUCCESS


def prepared(root: Path, part: str) -> Run:
    """A run whose stage is about to start."""
    run = tiny_run(root, new_run_id("train"))
    for stage in run.plan.stages:
        run.job_dir(stage.name).mkdir()
        run.record("submitting", stage=stage.name, restart=0)
        run.record("submitted", stage=stage.name, job_id="77", restart=0)
    if part == "requeue":
        (run.path / "interrupt").touch()
    if part == "hand-over":
        assert start(run, "train", 0) == ExitCode.OK
    return run
