"""What Slurm is asked about the jobs of runs, and what its answers make of them.

Small programs on PATH stand in for Slurm's, as in test_submit.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest
from launch_support import STAGE, make_run
from slurm_support import FakeSlurm, queue_line, submitted, survey

from rtdetr_slurm import records
from rtdetr_slurm.plan.model import Array, Dependency, Origin
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.slurm.answers import JobInfo
from rtdetr_slurm.submission.backends import SlurmBackend
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.sending import open_tasks, token
from rtdetr_slurm.submission.submit import submit_run
from rtdetr_slurm.submission.survey import survey_run, survey_runs


def test_states_come_from_one_squeue(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [
        make_run(tmp_path / "runs", STAGE, run_id=f"train-20260102-030405-{n:04x}")
        for n in range(5)
    ]
    for number, run in enumerate(runs):
        run.record("submitting", stage="train")
        run.record("submitted", stage="train", job_id=str(100 + number))
    lines = "\n".join(queue_line(run, str(100 + n), "RUNNING") for n, run in enumerate(runs))
    slurm.answer("squeue", f"cat <<'END'\n{lines}\nEND")
    found = survey_runs([run.path for run in runs])
    assert [report.state for report in found.reports.values()] == [StageState.RUNNING] * 5
    assert found.notes == ()
    assert len(slurm.calls("squeue")) == 1
    assert slurm.calls("sacct") == []


def test_one_call_tells_how_jobs_have_ended(slurm: FakeSlurm, tmp_path: Path) -> None:
    """Also of many jobs, and none is asked for what nobody knows."""
    runs = [
        make_run(tmp_path / "runs", STAGE, run_id=f"train-20260102-030405-{n:04x}")
        for n in range(9)
    ]
    for number, run in enumerate(runs):
        submitted(run, str(100 + number))
    ended = list(enumerate(runs))[:4]
    lines = [queue_line(run, str(100 + n), "FAILED") for n, run in ended]
    slurm.answer("squeue", "\n".join(f"echo '{line}'" for line in lines))
    shown = [
        f"JobId={100 + n} JobState=FAILED ExitCode=3:0 Comment={token(run.id, 'train')}"
        for n, run in ended
    ]
    slurm.answer("scontrol", "\n".join(f"echo '{line}'" for line in shown))
    reports = survey_runs([run.path for run in runs]).reports.values()
    assert [r.state.value for r in reports] == ["failed"] * 4 + ["unknown"] * 5
    evidence = {r.stages[0].failure.evidence for r in reports if r.stages[0].failure}
    assert evidence == {"exit code 3; the log is empty; the job itself wrote down no end"}
    assert [len(slurm.calls(p)) for p in ("squeue", "sacct", "scontrol")] == [1, 1, 1]


@pytest.mark.parametrize("comment", ["rtdetr-slurm:train-20250101-000000-0000:train", "", "x"])
def test_a_number_that_is_somebody_elses_now_says_nothing(
    slurm: FakeSlurm, run: Run, comment: str
) -> None:
    """Ids start anew when Slurm loses its state."""
    submitted(run)
    slurm.answer("squeue", f"echo '42|RUNNING|None|N/A|n|{comment}|'")
    slurm.answer("sacct", "echo '42|FAILED|1:0|None|n|||/somewhere'")
    [stage] = survey(run).stages
    assert (stage.state, stage.job) == (StageState.UNKNOWN, JobInfo("42", "GONE", source="nobody"))
    assert stage.to_json()["slurm_state"] is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_another_users_run_is_asked_about_by_its_owner(slurm: FakeSlurm, run: Run) -> None:
    """Where Slurm does not show it, as with PrivateData, nobody says that it is gone."""
    submitted(run)
    run.record("cancelling", stage="train", job_id="42")
    line = queue_line(run, "42", "RUNNING")
    slurm.answer("squeue", f"case $* in *--user=1234*) echo '{line}';; esac")
    os.chown(run.path, 1234, -1)
    assert survey(run).state is StageState.RUNNING
    slurm.answer("squeue", "true")
    assert survey(run).state is StageState.UNKNOWN
    slurm.answer("squeue", "echo 'Invalid user: 1234' >&2; exit 1")
    assert survey(run).state is StageState.UNKNOWN


def test_what_slurmctld_lost_is_not_queued_for_ever(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("sacct", f"echo '42|PENDING|0:0|None||Unknown||{run.path}'")
    assert survey(run).state is StageState.UNKNOWN


def test_a_job_whose_number_was_never_recorded_is_found_by_its_token(
    slurm: FakeSlurm, run: Run
) -> None:
    run.record("submitting", stage="train", token=token(run.id, "train"))
    slurm.answer("squeue", f"echo '{queue_line(run, '77', 'RUNNING')}'")
    [stage] = survey(run).stages
    assert (stage.state, stage.job_id) == (StageState.RUNNING, "77")


def test_what_squeue_forgot_sacct_knows(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("sacct", f"echo '42|TIMEOUT|0:0|None|n|||{run.path}'")
    found = survey(run)
    failure = found.stages[0].failure
    assert failure is not None
    assert failure.failure_class.value == "timeout"
    [call] = slurm.calls("sacct")
    assert "--starttime=" in call, "sacct looks no further back than midnight by itself"


def test_when_nobody_knows_the_state_is_unknown(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    found, notes = survey_run(run.path)
    assert found.state is StageState.UNKNOWN
    assert notes == ()
    slurm.answer("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    assert found.stages[0].detail.startswith("the scheduler does not know the job")
    found, [note] = survey_run(run.path)
    assert found.state is StageState.UNKNOWN
    assert found.stages[0].detail.startswith("the scheduler says nothing of the job")
    assert "Unable to contact" in note


def test_ended_runs_are_not_asked_about(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    run.record("finished", stage="train", job_id="42", state="success", reason="")
    found = survey(run)
    assert found.state is StageState.SUCCESS
    assert slurm.calls("squeue") == []


def test_a_run_that_is_removed_while_it_is_read_hides_no_other(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    good = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-aaaa")
    removed = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-bbbb")
    for run, job_id in ((good, "41"), (removed, "42")):
        submitted(run, job_id)
    slurm.answer("squeue", f"rm -r {removed.path}; echo '{queue_line(good, '41', 'RUNNING')}'")
    found = survey_runs([removed.path, good.path])
    assert [report.run_id for report in found.reports.values()] == [good.id]
    assert "is not a run folder" in found.unreadable[removed.path]


def test_a_run_that_has_gone_is_asked_about_like_any_other(
    slurm: FakeSlurm, tmp_path: Path
) -> None:
    submitted(gone := make_run(tmp_path / "runs", STAGE))
    asked = open_tasks(gone, gone.events())
    shutil.rmtree(gone.path)
    slurm.answer("squeue", f"echo '{queue_line(gone, '42', 'RUNNING')}'")
    [job] = SlurmBackend().jobs(asked)
    assert job is not None
    assert job.state == "RUNNING"


def test_each_task_of_an_array_has_its_own_state(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", replace(STAGE, array=Array(4)))
    assert submit_run(run) == {"train": "42"}
    assert "#SBATCH --array=0-3%4\n" in (run.job_dir("train") / "job.sh").read_text()
    run.record("started", stage="train", task=0, job_id="42_0", restart=0)
    run.record("finished", stage="train", task=0, job_id="42_0", restart=0, state="success")
    waiting = queue_line(run, "42_[2-3%1]", reason="JobArrayTaskLimit")
    lines = f"{queue_line(run, '42_1', 'RUNNING')}\n{waiting}"
    slurm.answer("squeue", f"cat <<'END'\n{lines}\nEND")
    found = survey(run)
    assert [(s.name, s.job_id, s.state.value) for s in found.stages] == [
        ("train.0", "42_0", "success"),
        ("train.1", "42_1", "running"),
        ("train.2", "42_2", "queued"),
        ("train.3", "42_3", "queued"),
    ]
    assert set(cancel_run(run).jobs) == {"train.1", "train.2", "train.3"}
    assert slurm.calls("scancel") == ["42_1 42_2 42_3"]


def test_tasks_that_wait_here_and_there_are_all_seen(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", replace(STAGE, array=Array(60)))
    submitted(run)
    odd = ",".join(str(task) for task in range(1, 60, 2))
    cut, whole = (queue_line(run, f"42_[{tasks}]") for tasks in (f"{odd[:60]}...", odd))
    slurm.answer("squeue", f'[ "$SLURM_BITSTR_LEN" = 0 ] && echo "{whole}" || echo "{cut}"')
    states = [one.state for one in survey(run).stages]
    assert states == [StageState.UNKNOWN, StageState.QUEUED] * 30


def test_a_run_that_has_ended_costs_one_small_read(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    run.record("finished", stage="train", job_id="42", restart=0, state="success", reason="")
    before = survey(run)
    assert cancel_run(run).jobs == {}  # whoever sees the end leaves the summary
    read: list[str] = []
    real = records.open_file

    def noted(path: Path) -> BinaryIO:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(records, "open_file", noted)
    assert survey(run).to_json() == before.to_json()
    assert read == ["summary.json"]
    assert slurm.calls("squeue") == []


def test_a_chain_behind_another_run_that_failed_is_over(slurm: FakeSlurm, tmp_path: Path) -> None:
    """With that run's reason, all along the chain, and nobody needs to look again."""
    parent = make_run(tmp_path, STAGE, run_id="train-20260101-000000-aaaa")
    first = replace(STAGE, depends_on=(Dependency(Origin("train", str(parent.path))),))
    after = (Dependency(Origin("train")),)
    second = replace(STAGE, name="evaluate", action="evaluate", depends_on=after)
    second = replace(second, results_dir="/runs/r/results/evaluate")
    child = make_run(tmp_path, first, second)
    for run in (parent, child):
        for number, stage in enumerate(run.plan.stages):
            job = str(len(run.id) + number)
            run.record("submitting", stage=stage.name)
            run.record("submitted", stage=stage.name, job_id=job)
    assert not survey_run(child.path)[0].ended
    ended = {"state": "failed", "failure_class": "config", "reason": "no such class"}
    parent.record("finished", stage="train", job_id="26", restart=0, **ended)
    survey_run(child.path, complete=False)
    assert not (child.path / "summary.json").exists()
    report, _ = survey_run(child.path)
    assert [stage.state for stage in report.stages] == [StageState.SKIPPED] * 2
    why = "train of train-20260101-000000-aaaa failed: no such class"
    assert [stage.detail for stage in report.stages] == [why, f"train skipped: {why}"]
    asked = len(slurm.calls("squeue"))
    assert survey_run(child.path)[0].stages[1].detail == f"train skipped: {why}"
    assert len(slurm.calls("squeue")) == asked


def test_one_damaged_run_does_not_hide_the_others(slurm: FakeSlurm, tmp_path: Path) -> None:
    good = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-aaaa")
    bad = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-bbbb")
    newer = replace(STAGE, results_dir=str(tmp_path / "results"))
    strange = make_run(tmp_path / "runs", newer, run_id="train-20260101-000000-cccc")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "status.json").write_text('{"schema_version": 9}\n')
    (bad.path / "run.json").write_text("[]")
    found = survey_runs([bad.path, good.path, strange.path])
    assert [report.run_id for report in found.reports.values()] == [good.id]
    assert list(found.unreadable) == [bad.path, strange.path]
    assert f"{bad.path}/run.json: this is no object" in found.unreadable[bad.path]
    newer_said = "status.json: version 9 is newer than version 1"
    assert newer_said in found.unreadable[strange.path]


def test_an_end_is_no_failure_before_its_record_can_be_here(slurm: FakeSlurm, run: Run) -> None:
    """NFS shows what the job's node has written a minute late; nothing is recorded until then."""
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'COMPLETED')}'")
    facts = f"JobId=42 JobState=COMPLETED ExitCode=0:0 Comment={token(run.id, 'train')}"
    slurm.answer("scontrol", f'echo "{facts} EndTime=$(date +%Y-%m-%dT%H:%M:%S)"')
    found, notes = survey_run(run.path)
    assert (found.state, notes) == (StageState.RUNNING, ())
    slurm.answer("scontrol", f"echo '{facts} EndTime=2026-01-02T03:04:05'")
    found, notes = survey_run(run.path)
    assert found.state is StageState.FAILED
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("answer", "state"), [("PENDING", "queued"), ("", "unknown"), ("RUNNING", "running")]
)
def test_gpus_are_held_by_what_runs_alone(
    slurm: FakeSlurm, run: Run, answer: str, state: str
) -> None:
    """Not by a job that lost its node, and waits again or is forgotten."""
    submitted(run)
    run.record("started", stage="train", job_id="42", restart=0)
    if answer:
        slurm.answer("squeue", f"echo '{queue_line(run, '42', answer)}'")
    [stage] = survey(run).stages
    assert (stage.state.value, stage.usage.starts) == (state, 1)
    assert (stage.usage.allocated_s > 0) == (state == "running")
