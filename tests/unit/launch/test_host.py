"""The controller's view of its allocation, and how it starts and stops a step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, local_stage, make_run

from rtdetr_slurm.contract import STOP_SIGNAL
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.launch.host import LocalHost, SlurmHost, make_host
from rtdetr_slurm.launch.outcome import Interruption, Stop
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.run import Run

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
    argv = SlurmHost(run, BATCH).command(run, STAGE)
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
    assert argv[-4:] == ["-m", "rtdetr_slurm.launch.node", str(run.path), "train"]


def test_address_port_and_resume_of_each_start(run: Run, programs: Path) -> None:
    program(programs, "scontrol", '[ "$*" = "show hostnames node[1-2]" ] && echo localhost')
    env = SlurmHost(run, BATCH).environment({"PATH": "/bin", "RTDETR_RESUME": "1"})
    assert (env["MASTER_ADDR"], env["MASTER_PORT"], env["PATH"]) == ("127.0.0.1", "20008", "/bin")
    assert "RTDETR_RESUME" not in env, "left over from an enclosing job"
    again = SlurmHost(run, BATCH | {"SLURM_RESTART_COUNT": "1"}).environment({})
    assert again["RTDETR_RESUME"] == "1"
    assert again["MASTER_PORT"] != env["MASTER_PORT"]


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
    SlurmHost(run, BATCH).check(STAGE)
    with pytest.raises(SiteError, match=message):
        SlurmHost(run, BATCH | change).check(STAGE)


def unmanaged() -> Stage:
    return replace(STAGE, resources=replace(STAGE.resources, gpu_request="none"))


def test_where_slurm_manages_no_gpus_none_are_counted(run: Run) -> None:
    SlurmHost(run, BATCH | {"SLURM_GPUS_ON_NODE": "0"}).check(unmanaged())


def facts(state: str, *, restarts: int = 0, preempted: str = "None") -> str:
    return (
        f"echo 'JobId=8 JobState={state} Restarts={restarts} RunTime=00:10:00 "
        f"TimeLimit=01:00:00 PreemptTime={preempted}'"
    )


def test_a_job_that_somebody_cancelled_is_told_from_a_preempted_one(
    run: Run, programs: Path
) -> None:
    log = run.log_path("8")
    log.write_text("*** JOB 8 ON node1 CANCELLED AT 2026-01-01T00:00:00 DUE TO JOB REQUEUE ***\n")
    host = SlurmHost(run, BATCH)
    program(programs, "scontrol", facts("COMPLETING"))
    with log.open("a") as stream:
        stream.write("*** JOB 8 ON node1 CANCELLED AT 2026-01-02T00:00:00 ***\n")
    assert host.why_stopped(15, 120) == Stop(Interruption.CANCELLED, by_scheduler=True)
    with log.open("a") as stream:
        stream.write("*** JOB 8 ON node1 CANCELLED AT 2026-01-02T00:00:00 DUE TO PREEMPTION ***\n")
    assert host.why_stopped(15, 120) == Stop(Interruption.PREEMPTED, by_scheduler=True)


def test_an_end_that_slurm_does_not_explain_counts_as_cancelled(
    run: Run, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtdetr_slurm.launch.host._NOTICE_WAIT_S", 0.1)
    program(programs, "scontrol", facts("COMPLETING"))
    stop = SlurmHost(run, BATCH).why_stopped(15, 120)
    assert stop == Stop(Interruption.CANCELLED, by_scheduler=True), "it must not come back"


def test_a_warning_is_the_jobs_own_affair(run: Run, programs: Path) -> None:
    program(programs, "scontrol", facts("RUNNING"))
    host = SlurmHost(run, BATCH)
    assert host.why_stopped(12, 120) == Stop(Interruption.PREEMPTED, by_scheduler=False)
    assert host.why_stopped(12, 3600) == Stop(Interruption.TIMEOUT, by_scheduler=False)
    assert not host.quietly_preempted()
    program(programs, "scontrol", facts("RUNNING", preempted="2026-01-01T00:00:00"))
    assert host.quietly_preempted()


def test_a_slurm_that_does_not_answer_is_no_reason_to_give_up(run: Run, programs: Path) -> None:
    program(programs, "scontrol", "exit 1")
    host = SlurmHost(run, BATCH)
    assert host.why_stopped(12, 120) == Stop(Interruption.PREEMPTED, by_scheduler=False)
    assert not host.quietly_preempted()
    with pytest.raises(SiteError, match="scontrol"):
        host.requeue()


@pytest.mark.parametrize(("restarts", "called"), [(0, True), (1, False)])
def test_a_job_that_slurm_requeued_itself_is_left_alone(
    run: Run, programs: Path, restarts: int, called: bool
) -> None:
    shown = facts("COMPLETING", restarts=restarts)
    program(programs, "scontrol", f"{shown}; echo $@ >> {programs}/calls")
    SlurmHost(run, BATCH).requeue()
    calls = (programs / "calls").read_text()
    assert ("requeue 8" in calls) is called


def test_this_machine(tmp_path: Path) -> None:
    stage = local_stage(tmp_path)
    run = make_run(tmp_path, stage)
    host = make_host(run, stage, {"SUBMITIT_LOCAL_JOB_ID": "9"})
    assert isinstance(host, LocalHost)
    assert host.command(run, stage)[1:3] == ["-m", "rtdetr_slurm.launch.node"]
    assert host.why_stopped(12, 60).why is Interruption.TIMEOUT
    assert host.why_stopped(15, 60).why is Interruption.CANCELLED
    with pytest.raises(SiteError, match="has no queue"):
        host.requeue()


def test_the_stop_signal_kills_nobody_who_does_not_expect_it() -> None:
    # SIGCHLD, SIGCONT, SIGURG and SIGWINCH are those that are ignored by default.
    assert STOP_SIGNAL.name in ("SIGURG", "SIGWINCH")
