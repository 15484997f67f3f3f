"""One start of one stage: what is written down, whatever happens below it.

The step starts a shell instead of the node wrapper; the real one is in tests/unit/local and in
tests/cluster.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from launch_support import claim_results, local_stage, make_run, write_checkpoint
from os_support import files_of_at_most

from rtdetr_slurm.contract import Env, FailureClass, Status
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch import stage_run, step
from rtdetr_slurm.launch.allocation import Exclusion, LocalAllocation, StopReason
from rtdetr_slurm.launch.node_errors import write_node_error
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import Step, StopRequest
from rtdetr_slurm.launch.verdict import MAX_STARTS_IN_VAIN
from rtdetr_slurm.plan.model import Array, Container, Endurance, Image, Stage, StageTask
from rtdetr_slurm.runs import artefacts
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.images import ImageRecord
from rtdetr_slurm.runs.run import Run, freeze_spec
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.status import StatusLog
from rtdetr_slurm.runs.summary import read_summary


class ShellAllocation(LocalAllocation):
    """Runs a shell script as the step."""

    def __init__(self, script: str) -> None:
        self.script = script
        self.reason = StopReason(FailureClass.PREEMPTED)
        self.refusal: str | None = None
        self.requeued = 0
        self.left_out: tuple[str, ...] = ()
        self.job_id = "77"
        self.killed_after = 30

    def check(self) -> None:
        if self.refusal is not None:
            raise SiteError(self.refusal)

    def why_stopped(self, signum: int, lead_s: int, /) -> StopReason:
        return self.reason

    def nodes(self) -> tuple[str, ...]:
        return (f"n{self.restart}",)

    def kill_wait_s(self) -> int:
        return self.killed_after

    def exclusion(self, bad: Sequence[str], _earlier: Sequence[str], /) -> Exclusion:
        return Exclusion(tuple(bad))

    def requeue(self, exclude: Sequence[str] = (), /) -> None:
        self.requeued += 1
        self.left_out = tuple(exclude)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and the test's own signal handlers back afterwards."""
    monkeypatch.setattr(step, "_POLL_S", 0.02)
    monkeypatch.setattr(Step, "command", shell_command)
    handlers = {s: signal.getsignal(s) for s in (signal.SIGUSR2, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    made = local_stage(tmp_path / "results")
    return replace(made, launch=replace(made.launch, requeue=True))


@pytest.fixture
def run(tmp_path: Path, stage: Stage) -> Run:
    """Submitted, and its first start is behind it: what tests put into its folder is its own."""
    made = make_run(tmp_path, stage)
    made.record("submitted", stage="train", job_id="77")
    claim_results(made, StageTask(stage), restart=0)
    return made


def line(status: Status, **data: Any) -> str:
    """Shell text that appends a status line the way the engine does."""
    data_args = ", ".join(f"{key}={value!r}" for key, value in data.items())
    code = (
        "from rtdetr_slurm.runs.status import *; import os, sys; from pathlib import Path; "
        "from rtdetr_slurm.runs.claim import start_of; "
        f"StatusLog(Path(sys.argv[1]), start_of(os.environ)).write(Status.{status.name}, 'x', "
        f"{data_args})"
    )
    return f"{sys.executable} -c {code!r} {{status}}"


def shell_command(self: Step) -> list[str]:
    assert isinstance(self.allocation, ShellAllocation)
    return ["/bin/bash", "-c", self.allocation.script]


def execute(run: Run, stage: Stage, allocation: ShellAllocation, index: int | None = None) -> int:
    allocation.task = StageTask(stage, index)
    status = f"{allocation.task.results_dir}/status.json"
    allocation.script = allocation.script.replace("{status}", status)
    return StageRun(run, allocation, StopRequest({})).execute()


def ends(run: Run, stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """Names of the events, and the last line of status.json."""
    lines = (Path(stage.results_dir) / "status.json").read_text().splitlines()
    return [event["event"] for event in run.events()], json.loads(lines[-1])


@pytest.mark.parametrize(("mask", "folder", "file"), [(0, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_others_do_not_write_what_a_start_goes_by(
    run: Run, stage: Stage, mask: int, folder: int, file: int
) -> None:
    array = replace(stage, array=Array(2))
    before = os.umask(mask)
    try:
        execute(run, array, ShellAllocation("true"), index=1)
    finally:
        os.umask(before)
    job = run.job_dir("train.1")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (job, *job.iterdir())}
    assert modes == {"train.1": folder, "node-0": folder, "spec.yaml": file, "inputs.json": file}


def test_each_checkpoint_is_read_once_at_the_end(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for its checksums, and those that are recorded once more for their digests."""
    folder = Path(stage.results_dir)
    status = StatusLog(folder / "status.json", Start(claim_id(run.id, "train")))
    for epoch in range(3):
        write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
        status.write(Status.RUNNING, epoch=epoch, kpi={"val_mAP": 0.5 - 0.1 * epoch})
    read: list[str] = []

    def noted(name: str, real: Callable[[Path], Any], path: Path) -> Any:
        read.append(f"{name} {path.name}")
        return real(path)

    for module, name in ((stage_run, "verify_checkpoint"), (artefacts, "sha256_of")):
        monkeypatch.setattr(module, name, partial(noted, name, getattr(module, name)))
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    assert sorted(read) == [
        "sha256_of model_epoch_000.pth",
        "sha256_of model_epoch_002.pth",
        "verify_checkpoint model_epoch_000.pth",
        "verify_checkpoint model_epoch_002.pth",
    ]


def test_an_end_without_room_is_told_as_such(
    run: Run, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    """The spec of the stage cannot be written; everything small still can."""
    spec = {"dataset": {"names": ["x" * 100] * 100}}
    run = replace(run, manifest=replace(run.manifest, spec=freeze_spec("train.yaml", [], spec)))
    with files_of_at_most(5000):
        assert execute(run, stage, ShellAllocation("exit 0")) == 1
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "finished"]
    assert last["reason"].startswith(f"{run.path}/jobs/train/spec.yaml: File too large")
    assert "Traceback" not in capfd.readouterr().err


def test_success(run: Run, stage: Stage) -> None:
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "resolved", "finished"]
    assert run.events()[-1]["state"] == "success"
    assert last["status"] == "SUCCESS"


def test_success_of_an_earlier_run_in_the_same_folder_is_not_taken_for_ours(
    run: Run, stage: Stage
) -> None:
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    StatusLog(Path(stage.results_dir) / "status.json").write(Status.SUCCESS)
    assert execute(run, stage, ShellAllocation("true")) == 1
    assert ends(run, stage)[1]["status"] == "FAILURE"


def test_an_engine_that_dies_without_a_word(run: Run, stage: Stage) -> None:
    run.log_path("train", "77").write_text("epoch 1\ntorch.OutOfMemoryError: CUDA out of memory\n")
    assert execute(run, stage, ShellAllocation("kill -9 $$")) == 1
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert (last["status"], last["failure_class"]) == ("FAILURE", "oom_gpu")
    assert last["reason"] == "log: torch.OutOfMemoryError: CUDA out of memory"


def test_what_a_node_refused_becomes_the_reason(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(self: Step) -> list[str]:
        error = SiteError("port 20077 cannot be used")
        write_node_error(self.run, self.allocation.task, 0, "n", error)
        return ["/bin/false"]

    monkeypatch.setattr(Step, "command", refusing)
    stage = replace(stage, launch=replace(stage.launch, requeue=False))
    assert execute(run, stage, ShellAllocation("")) == 1
    last = ends(run, stage)[1]
    assert (last["failure_class"], last["reason"]) == (
        FailureClass.INFRA.value,
        "node 0 (n): port 20077 cannot be used",
    )


def test_a_wrong_allocation_starts_nothing(run: Run, stage: Stage, tmp_path: Path) -> None:
    host = ShellAllocation(f"touch {tmp_path}/started")
    host.refusal = "the allocation has 1 nodes"
    assert execute(run, stage, host) == 1
    assert not (tmp_path / "started").exists()
    assert ends(run, stage)[1]["reason"] == "the allocation has 1 nodes"


def test_a_results_folder_that_cannot_be_made(run: Run, stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    stage = replace(stage, results_dir=str(tmp_path / "file" / "results"))
    assert execute(run, stage, ShellAllocation("true")) == 1
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "config")
    assert "cannot make results_dir" in end["reason"]


def test_a_fault_of_the_launch_itself_is_written_down(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(self: Step) -> list[str]:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Step, "command", faulty)
    with pytest.raises(RuntimeError, match="a bug"):
        execute(run, stage, ShellAllocation(""))
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert "the launch failed: RuntimeError('a bug')" in last["reason"]


def when_started(run: Run, action: Callable[[], Any]) -> None:
    """Do something from another thread a moment after the step has begun."""

    def wait() -> None:
        while not any(event["event"] == "started" for event in run.events()):
            time.sleep(0.02)
        time.sleep(0.3)
        action()

    threading.Thread(target=wait, daemon=True).start()


# The engine's part: at the stop signal it writes PREEMPTED and exits with 75.
STOPPABLE = (
    "trap 'stopped=1' URG; "
    "for i in $(seq 200); do sleep 0.05; "
    f"if [ $stopped ]; then {line(Status.PREEMPTED)}; exit 75; fi; done; exit 9"
)


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_either_signal_stops_the_training_and_requeues_the_job(
    run: Run, stage: Stage, signum: int
) -> None:
    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)
    when_started(run, lambda: os.kill(os.getpid(), signum))
    assert execute(run, stage, host) == 75
    events, last = ends(run, stage)
    assert events == ["submitted", "started", "resolved", "requeued"]
    assert host.requeued == 1
    assert last["status"] == "PREEMPTED"
    assert "goes on from interrupted_epoch_003_step_000002.pth" in run.events()[-1]["reason"]


def test_a_cancelled_training_is_stopped_and_does_not_come_back(run: Run, stage: Stage) -> None:
    host = ShellAllocation(STOPPABLE)

    def cancel() -> None:
        run.record("cancelling", stage="train", job_id="77")
        os.kill(os.getpid(), signal.SIGTERM)

    when_started(run, cancel)
    assert execute(run, stage, host) == 1
    events, last = ends(run, stage)
    assert events[-1] == "finished"
    assert run.events()[-1]["state"] == "cancelled"
    assert (last["status"], last["failure_class"]) == ("FAILURE", "cancelled")
    assert host.requeued == 0


@pytest.mark.parametrize("event", ["cancelling", "withdrawn", "unclear"])
def test_what_was_cancelled_before_it_started_ends_at_once(
    run: Run, stage: Stage, tmp_path: Path, event: str
) -> None:
    """Also when nobody knew of the job then: sbatch was still at work, or gave no clear answer."""
    run.record(event, stage="train")
    assert execute(run, stage, ShellAllocation(f"touch {tmp_path}/started")) == 1
    assert not (tmp_path / "started").exists()
    end = run.events()[-1]
    assert (end["event"], end["state"]) == ("finished", "cancelled")
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.CANCELLED


def test_a_damaged_record_keeps_no_job_from_its_start(
    run: Run, stage: Stage, capfd: pytest.CaptureFixture[str]
) -> None:
    (run.path / "events" / "other.jsonl").write_text("no event\n")
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0
    assert "whether somebody has cancelled it is not known" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("content", "heard", "said"),
    [
        (None, None, "this is not a regular file"),
        (b"\xff\xfe", None, "is no signal that asks for an end"),
        (b"KILL\x1b\n", None, r"'KILL\x1b' is no signal that asks for an end"),
        (b"\xff\nTERM\n", signal.SIGTERM, "is no signal that asks for an end"),
    ],
)
def test_a_damaged_note_of_a_signal_keeps_no_job_from_its_start(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    content: bytes | None,
    heard: int | None,
    said: str,
) -> None:
    note = tmp_path / "warned-8-0"
    note.mkdir() if content is None else note.write_bytes(content)
    assert StopRequest({Env.WARNED: str(note)}).signum == heard
    told = capfd.readouterr().err
    assert str(note) in told
    assert said in told
    assert told.count("\n") == 1


def test_a_cancel_that_was_refused_does_not_end_an_interrupted_run(run: Run, stage: Stage) -> None:
    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)

    def refused() -> None:
        for event in ("cancelling", "not_cancelled"):
            run.record(event, stage="train", job_id="77")
        os.kill(os.getpid(), signal.SIGUSR2)

    when_started(run, refused)
    assert execute(run, stage, host) == 75
    assert host.requeued == 1


def test_a_cancelled_task_does_not_end_its_neighbour(run: Run, stage: Stage) -> None:
    stage = replace(stage, array=Array(2))
    claim_results(run, StageTask(stage, 1), restart=0)
    write_checkpoint(Path(stage.results_dir) / "1" / "interrupted_epoch_003_step_000002.pth")
    host = ShellAllocation(STOPPABLE)

    def cancel() -> None:
        run.record("cancelling", stage="train", task=0, job_id="77_0")
        os.kill(os.getpid(), signal.SIGTERM)

    when_started(run, cancel)
    assert execute(run, stage, host, index=1) == 75
    assert run.events()[-1]["event"] == "requeued"


def test_what_slurm_ends_itself_is_not_signalled_again(run: Run, stage: Stage) -> None:
    host = ShellAllocation(STOPPABLE.replace("exit 9", "true").replace("200", "20"))
    host.reason = StopReason(FailureClass.CANCELLED, by_scheduler=True)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGTERM))
    execute(run, stage, host)
    assert ends(run, stage)[1]["failure_class"] == "cancelled"
    statuses = (Path(stage.results_dir) / "status.json").read_text()
    assert "PREEMPTED" not in statuses, "the step has got a stop signal"


def test_a_training_that_does_not_stop_is_killed_and_goes_on_from_its_last_epoch(
    run: Run, stage: Stage
) -> None:
    stage = replace(stage, launch=replace(stage.launch, signal_lead_s=1))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_004.pth")
    host = ShellAllocation("trap '' URG; sleep 60 & wait")
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert execute(run, stage, host) == 75
    assert "goes on from model_epoch_004.pth" in run.events()[-1]["reason"]
    assert ends(run, stage)[1]["status"] == "PREEMPTED"


def test_starts_that_get_no_further_come_to_an_end(run: Run, stage: Stage, tmp_path: Path) -> None:
    """Whether the training writes its checkpoint once more where it began, or Slurm itself puts
    the job back each time and nobody is asked."""
    path = Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth"
    write_checkpoint(path)
    for restart in range(MAX_STARTS_IN_VAIN):
        host = ShellAllocation(f"touch {path}; exit 75")
        host.restart = restart
        last = restart == MAX_STARTS_IN_VAIN - 1
        assert execute(run, stage, host) == (1 if last else 75)
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "preempted")
    assert "10 starts in a row have not got further" in end["reason"]
    host = ShellAllocation(f"touch {tmp_path}/started")
    host.restart = MAX_STARTS_IN_VAIN
    assert execute(run, stage, host) == 1
    assert not (tmp_path / "started").exists()


def test_an_infra_failure_goes_back_without_its_node_and_not_for_ever(
    run: Run, stage: Stage
) -> None:
    failing = f"{line(Status.FAILURE, failure_class='infra', reason='ncclSystemError')}; exit 1"
    for restart in range(3):
        host = ShellAllocation(failing)
        host.restart = restart
        assert execute(run, stage, host) == (1 if restart == 2 else 75)
        assert host.left_out == ([("n0",), ("n1", "n0"), ()])[restart]
        last = ends(run, stage)[1]
        assert last["status"] == ("FAILURE" if restart == 2 else "PREEMPTED")
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "infra")
    assert "tried again 2 times already" in end["reason"]


def test_a_start_that_reaches_the_end_of_the_hours_is_stopped_in_time(
    run: Run, stage: Stage
) -> None:
    endurance = Endurance(max_hours=21.5 / 3600)
    stage = replace(stage, launch=replace(stage.launch, endurance=endurance, signal_lead_s=1))
    run.record("started", stage="train", restart=0, seconds_before=20.0)
    host = ShellAllocation(STOPPABLE)
    host.restart = 1
    assert execute(run, stage, host) == 1
    end = run.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "timeout")
    assert "(job.max_hours)" in end["reason"]
    assert (run.job_dir("train") / "alive").exists()


def test_when_slurm_ends_the_job_itself_its_kill_wait_is_all_there_is(
    run: Run, stage: Stage
) -> None:
    """However long the lead before the time limit is: the end is written down before KILL."""
    host = ShellAllocation("trap '' URG; sleep 60 & wait")
    host.killed_after = 1
    host.reason = StopReason(FailureClass.CANCELLED, by_scheduler=True)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGTERM))
    begun = time.monotonic()
    execute(run, stage, host)
    assert time.monotonic() - begun < stage.launch.signal_lead_s / 4
    assert ends(run, stage)[1]["failure_class"] == "cancelled"


def test_a_refused_requeue_is_a_failure_that_says_so(run: Run, stage: Stage) -> None:
    class Disabled(ShellAllocation):
        def requeue(self, _exclude: Sequence[str] = (), /) -> None:
            raise SiteError("scontrol: Requested operation is presently disabled")

    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    host = Disabled(STOPPABLE)
    when_started(run, lambda: os.kill(os.getpid(), signal.SIGUSR2))
    assert execute(run, stage, host) == 1
    events, last = ends(run, stage)
    assert events[-2:] == ["requeued", "finished"]
    assert (last["status"], last["failure_class"]) == ("FAILURE", "preempted")
    assert "the requeue was refused: scontrol: Requested operation" in last["reason"]


def test_records_of_an_earlier_start_are_gone(run: Run, stage: Stage) -> None:
    run.node_dir(StageTask(stage), 0).mkdir(parents=True)
    write_node_error(run, StageTask(stage), 0, "n", SiteError("of an earlier start"))
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 0


def test_the_real_launch_runs_by_itself(run: Run) -> None:
    """As the batch script calls it, in a process of its own; the node wrapper starts the engine."""
    argv = [sys.executable, "-m", "rtdetr_slurm.launch", "stage", str(run.path), "train"]
    env = os.environ | {"RTDETR_SLURM_LOCAL_JOB_ID": "77", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(argv, env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert run.events()[-1]["event"] == "finished"


def test_a_full_disk_does_not_keep_the_job_from_its_requeue(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any, **data: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "events/x.jsonl")

    write_checkpoint(Path(stage.results_dir) / "interrupted_epoch_003_step_000002.pth")
    monkeypatch.setattr(Run, "record", full)
    host = ShellAllocation("exit 75")
    assert execute(run, stage, host) == 75
    assert host.requeued == 1
    assert "cannot read or write events/x.jsonl: No space left on device" in capfd.readouterr().err


def test_a_start_after_the_end_takes_the_summary_back(run: Run, stage: Stage) -> None:
    """An administrator may requeue a job that has ended."""
    assert execute(run, stage, ShellAllocation("exit 1")) == 1
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.FAILED
    script = f"test ! -e {run.path}/summary.json && {line(Status.SUCCESS)}"
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    again = ShellAllocation(script)
    again.restart = 1
    assert execute(run, stage, again) == 0
    summary = read_summary(run.path)
    assert summary is not None
    assert summary.state is StageState.SUCCESS


# --- whose results folder it is ----------------------------------------------------------------
def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def queued(tmp_path: Path, stage: Stage) -> Run:
    """Submitted, and never started."""
    made = make_run(tmp_path, stage)
    made.record("submitted", stage="train", job_id="77")
    claim_results(made, StageTask(stage))
    return made


@pytest.mark.parametrize("restart", [0, 1, 3])
def test_another_trainings_checkpoints_are_never_adopted(
    queued: Run, stage: Stage, tmp_path: Path, restart: int
) -> None:
    """However often the job was requeued before it got so far as to look at its folder; and
    nothing is written there, also not that the start was refused."""
    folder = Path(stage.results_dir)
    write_checkpoint(folder / "model_epoch_009.pth")
    StatusLog(folder / "status.json").write(Status.SUCCESS)
    before = files(folder)
    host = ShellAllocation(f"touch {tmp_path}/engine; {line(Status.SUCCESS)}")
    host.restart = restart
    assert execute(queued, stage, host) == 1
    assert files(folder) == before
    assert not (tmp_path / "engine").exists()
    end = queued.events()[-1]
    assert (end["event"], end["failure_class"]) == ("finished", "config")
    assert "already holds checkpoints of a training" in end["reason"]
    assert "checkpoints" not in end


def test_a_start_goes_on_from_what_an_earlier_one_has_left(
    queued: Run, stage: Stage, tmp_path: Path
) -> None:
    assert execute(queued, stage, ShellAllocation(f"echo $RTDETR_RESUME > {tmp_path}/0")) == 1
    write_checkpoint(Path(stage.results_dir) / "model_epoch_000.pth")
    again = ShellAllocation(f"echo $RTDETR_RESUME $RTDETR_CLAIM $RTDETR_RESTART > {tmp_path}/1")
    again.restart = 1
    execute(queued, stage, again)
    assert (tmp_path / "0").read_text() == "\n"
    assert (tmp_path / "1").read_text() == f"1 {queued.id}:train 1\n"


def test_a_folder_that_another_run_has_claimed_is_left_alone(run: Run, stage: Stage) -> None:
    folder = Path(stage.results_dir)
    (folder / "claim.json").unlink()
    other = make_run(run.path.parent, stage, run_id="train-20260102-030405-0001")
    claim_results(other, StageTask(stage))
    before = files(folder)
    assert execute(run, stage, ShellAllocation(line(Status.SUCCESS))) == 1
    assert files(folder) == before
    assert f"belongs to run {other.id} (stage train)" in run.events()[-1]["reason"]


def test_a_start_on_a_node_that_was_cut_off_stops_writing(run: Run, stage: Stage) -> None:
    """Slurm has started the job anew on other nodes while it went on."""
    later = (
        f"{sys.executable} -c 'from rtdetr_slurm.runs.claim import *; from pathlib import Path; "
        f'begin(Path("{stage.results_dir}"), new_claim("{run.id}:train", restart=1))\''
    )
    host = ShellAllocation(f"{later}; {line(Status.RUNNING)} 2>&1 | tail -1; exit 1")
    assert execute(run, stage, host) == 1
    assert not (Path(stage.results_dir) / "status.json").exists()


def test_a_results_folder_that_is_full_is_named(
    run: Run, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("rtdetr_slurm.launch.stage_run.begin", full)
    assert execute(run, stage, ShellAllocation("true")) == 1
    assert "is not writable on this node: Disk quota exceeded" in run.events()[-1]["reason"]


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
