"""What a stage knows of its allocation, and how it starts and stops a step."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run

from rtdetr_slurm.contract import STOP_SIGNAL, FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.allocation import StopReason
from rtdetr_slurm.launch.slurm_allocation import SlurmAllocation, judge_warning
from rtdetr_slurm.launch.step import Step
from rtdetr_slurm.plan.model import Mail, Stage
from rtdetr_slurm.runs.claim import Start, claim_id
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.slurm import commands
from rtdetr_slurm.slurm.answers import OwnFacts

BATCH = {
    "SLURM_JOB_ID": "8",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_GPUS_ON_NODE": "2",
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, STAGE)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH for stand-ins of Slurm's programs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def program(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def test_the_inner_srun(run: Run) -> None:
    argv = step(run, BATCH).command()
    assert argv[0] == "srun"
    options = argv[1 : argv.index("-m") - 1]
    assert options == [
        "--nodes=2",
        "--ntasks=2",
        "--ntasks-per-node=1",
        "--export=ALL",
        "--kill-on-bad-exit=1",
        "--mpi=none",
        "--cpus-per-task=8",
    ]
    assert argv[-5:] == ["-m", "rtdetr_slurm.controller", "node", str(run.path), "train"]


def step(run: Run, environ: Mapping[str, str], *, restart: int = 0, resume: bool = False) -> Step:
    allocation = SlurmAllocation(run, STAGE, environ)
    start = Start(claim_id(run.id, "train"), restart)
    return Step(run, allocation, allocation.task, start, number=0, resume=resume)


def test_address_port_and_resume_of_each_start(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(programs, "scontrol", '[ "$*" = "show hostnames node[1-2]" ] && echo localhost')
    monkeypatch.setenv("RTDETR_RESUME", "1")
    environ = BATCH | os.environ
    env = step(run, environ).environment(20008)
    assert (env["MASTER_ADDR"], env["MASTER_PORT"]) == ("127.0.0.1", "20008")
    assert env["PATH"] == os.environ["PATH"]
    assert "RTDETR_RESUME" not in env, "left over from an enclosing job"
    assert (env["RTDETR_CLAIM"], env["RTDETR_RESTART"]) == (f"{run.id}:train", "0")
    again = step(run, environ, restart=1, resume=True).environment(24009)
    assert again["RTDETR_RESTART"] == "1"
    assert again["RTDETR_RESUME"] == "1"


def test_an_array_task_is_addressed_by_array_and_index(run: Run, programs: Path) -> None:
    """The task whose own number is the array's: a bare number would reach all of them."""
    program(
        programs, "scontrol", f"echo 'JobState=RUNNING Restarts=0'; echo $@ >> {programs}/calls"
    )
    program(programs, "scancel", f"echo scancel $@ >> {programs}/calls")
    task = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "3"}
    allocation = SlurmAllocation(run, STAGE, BATCH | os.environ | task)
    assert allocation.job_id == "8_3"
    assert (allocation.task.index, allocation.task.name) == (3, "train.3")
    allocation.signal_step(None, STOP_SIGNAL)  # type: ignore[arg-type]
    allocation.requeue()
    allocation.dismiss_waiting()
    calls = (programs / "calls").read_text().splitlines()
    assert calls == ["scancel --signal=URG 8_3", "--oneliner show job 8_3", "requeue 8_3",
                     "scancel --state=PENDING 8"]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"SLURM_JOB_NUM_NODES": "1"}, r"has 1 nodes, the spec's train\.num_nodes is 2"),
        ({"SLURM_GPUS_ON_NODE": "1"}, r"has 1 GPUs on the first node.*train\.num_gpus is 2"),
    ],
)
def test_an_allocation_that_is_not_the_plans(
    run: Run, change: dict[str, str], message: str
) -> None:
    SlurmAllocation(run, STAGE, BATCH).check()
    with pytest.raises(SiteError, match=message):
        SlurmAllocation(run, STAGE, BATCH | change).check()


def unmanaged() -> Stage:
    return replace(STAGE, resources=replace(STAGE.resources, gpu_request="none"))


def test_where_slurm_manages_no_gpus_none_are_counted(run: Run) -> None:
    SlurmAllocation(run, unmanaged(), BATCH | {"SLURM_GPUS_ON_NODE": "0"}).check()


def facts(state: str, *, restarts: int = 0, preempted: str = "None") -> str:
    return (
        f"echo 'JobId=8 JobState={state} Restarts={restarts} RunTime=00:10:00 "
        f"TimeLimit=01:00:00 PreemptTime={preempted}'"
    )


def test_a_job_that_somebody_cancelled_is_told_from_a_preempted_one(
    run: Run, programs: Path
) -> None:
    log = run.log_path("train", "8")
    log.write_text("*** JOB 8 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***\n")
    allocation = SlurmAllocation(run, STAGE, BATCH | os.environ)
    program(programs, "scontrol", facts("COMPLETING"))
    with log.open("a") as stream:
        stream.write("*** JOB 8 ON node1 CANCELLED AT 2026-01-02T00:00:00 ***\n")
    assert allocation.why_stopped(15, 120) == StopReason(FailureClass.CANCELLED, by_scheduler=True)
    with log.open("a") as stream:
        stream.write("*** JOB 8 ON node1 CANCELLED AT 2026-01-02T00:00:00 DUE TO PREEMPTION ***\n")
    assert allocation.why_stopped(15, 120) == StopReason(FailureClass.PREEMPTED, by_scheduler=True)


def test_an_end_that_slurm_does_not_explain_counts_as_cancelled(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtdetr_slurm.launch.slurm_allocation._NOTICE_WAIT_S", 0.1)
    program(programs, "scontrol", facts("COMPLETING"))
    stop = SlurmAllocation(run, STAGE, BATCH | os.environ).why_stopped(15, 120)
    assert stop == StopReason(FailureClass.CANCELLED, by_scheduler=True), "it must not come back"


def test_a_warning_is_the_jobs_own_affair(run: Run, programs: Path) -> None:
    program(programs, "scontrol", facts("RUNNING"))
    allocation = SlurmAllocation(run, STAGE, BATCH | os.environ)
    assert allocation.why_stopped(12, 120) == StopReason(FailureClass.PREEMPTED, by_scheduler=False)
    assert allocation.why_stopped(12, 3600) == StopReason(FailureClass.TIMEOUT, by_scheduler=False)
    assert not allocation.quietly_preempted()
    program(programs, "scontrol", facts("RUNNING", preempted="2026-01-01T00:00:00"))
    assert allocation.quietly_preempted()


@pytest.mark.parametrize("scontrol", ["exit 1", "sleep 9"])
def test_a_slurm_that_does_not_answer_is_no_reason_to_give_up(
    run: Run,
    programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    scontrol: str,
) -> None:
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.2)
    program(programs, "scontrol", scontrol)
    allocation = SlurmAllocation(run, STAGE, BATCH | os.environ)
    assert allocation.why_stopped(12, 120) == StopReason(FailureClass.PREEMPTED, by_scheduler=False)
    assert (
        "Slurm does not say why, so this counts as preemption: scontrol" in capfd.readouterr().err
    )
    assert not allocation.quietly_preempted()
    assert "does not say whether the job was preempted: scontrol" in capfd.readouterr().err
    monkeypatch.setattr("rtdetr_slurm.launch.slurm_allocation._REQUEUE_EVERY_S", 0.0)
    with pytest.raises(SiteError, match="scontrol"):
        allocation.requeue()


def test_a_requeue_that_gets_no_answer_is_tried_again(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first try finds nobody, the second is cut short, and has worked."""
    monkeypatch.setattr("rtdetr_slurm.launch.slurm_allocation._REQUEUE_EVERY_S", 0.0)
    there, done = programs / "there", programs / "done"
    shown = f"echo JobState=RUNNING Restarts=$(ls {done} 2> /dev/null | wc -l)"
    script = f"""echo $@ >> {programs}/calls
[ -e {there} ] || {{ touch {there}; exit 1; }}
[ "$1" = requeue ] || {{ {shown}; exit; }}
touch {done}; exit 1"""
    program(programs, "scontrol", script)
    SlurmAllocation(run, STAGE, BATCH | os.environ).requeue()
    show = "--oneliner show job 8"
    assert (programs / "calls").read_text().splitlines() == [show, show, "requeue 8", show]


def test_a_state_that_nobody_has_heard_of_is_no_end(run: Run, programs: Path) -> None:
    program(programs, "scontrol", facts("EXPEDITING"))
    stop = SlurmAllocation(run, STAGE, BATCH | os.environ).why_stopped(12, 120)
    assert stop == StopReason(FailureClass.PREEMPTED, by_scheduler=False)


@pytest.mark.parametrize(("restarts", "called"), [(0, True), (1, False)])
def test_a_job_that_slurm_requeued_itself_is_left_alone(
    run: Run, programs: Path, restarts: int, called: bool
) -> None:
    shown = facts("COMPLETING", restarts=restarts)
    program(programs, "scontrol", f"{shown}; echo $@ >> {programs}/calls")
    SlurmAllocation(run, STAGE, BATCH | os.environ).requeue()
    calls = (programs / "calls").read_text()
    assert ("requeue 8" in calls) is called


def test_the_stop_signal_kills_nobody_who_does_not_expect_it() -> None:
    # SIGCHLD, SIGCONT, SIGURG and SIGWINCH are those that are ignored by default.
    assert STOP_SIGNAL.name in ("SIGURG", "SIGWINCH")


@pytest.mark.parametrize(
    ("left", "preempted", "why"),
    [
        (100.0, False, FailureClass.TIMEOUT),
        (100.0, True, FailureClass.PREEMPTED),
        (9000.0, False, FailureClass.PREEMPTED),
        (None, False, FailureClass.PREEMPTED),
    ],
)
def test_what_a_warning_means(left: float | None, preempted: bool, why: FailureClass) -> None:
    facts = OwnFacts(running=True, restarts=0, preempted=preempted, seconds_left=left)
    assert judge_warning(facts, lead_s=120) == StopReason(why, by_scheduler=False)


def test_killing_a_step_does_not_end_its_job(run: Run, programs: Path) -> None:
    """KILL to a job takes the batch script along, and with it the requeue."""
    program(programs, "squeue", f"echo squeue $@ >> {programs}/calls; echo 8.batch 8.0; echo 8.2")
    program(programs, "scancel", f"echo scancel $@ >> {programs}/calls")
    allocation = SlurmAllocation(run, STAGE, BATCH | os.environ)
    allocation.signal_step(None, signal.SIGKILL)  # type: ignore[arg-type]
    assert (programs / "calls").read_text().splitlines() == [
        "squeue --steps --noheader --format=%i --jobs=8",
        "scancel --signal=KILL 8.0 8.2",
    ]


@pytest.mark.parametrize("restarts", ["0", "2"])
def test_every_start_sees_that_the_next_sends_no_mail(
    run: Run, programs: Path, restarts: str
) -> None:
    """The first may have ended before it came to that."""
    program(programs, "scontrol", f"echo $@ >> {programs}/calls")
    mail = Mail("ann@example.org", ("BEGIN", "FAIL"))
    stage = replace(STAGE, resources=replace(STAGE.resources, mail=mail))
    environ = BATCH | os.environ | {"SLURM_RESTART_COUNT": restarts}
    SlurmAllocation(run, stage, environ).mail_first_start_only()
    assert (programs / "calls").read_text() == "update JobId=8 MailType=FAIL\n"
