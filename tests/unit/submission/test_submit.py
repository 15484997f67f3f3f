"""Sending a stage exactly once, whatever sbatch answers.

Small programs on PATH stand in for Slurm's, because a real one cannot be made to answer so; the
real one is in tests/cluster.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from launch_support import STAGE, make_run
from rtdetr_slurm.launch.controller import Controller
from rtdetr_slurm.slurm.submit import cancel_run, submit_run, token
from rtdetr_slurm.slurm.survey import survey

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.slurm import submit
from rtdetr_slurm.slurm.client import SlurmClient, SlurmUnreachable, SubmissionRefused


class FakeSlurm:
    """A folder on PATH with programs that answer as told and note how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answer("sbatch", "echo 42")
        self.answer("squeue", "true")
        self.answer("sacct", "true")
        self.answer("scontrol", "exit 1")
        self.answer("scancel", "true")

    def answer(self, program: str, body: str) -> None:
        path = self.folder / program
        path.write_text(f'#!/bin/sh\necho "$@" >> {self.folder}/{program}.calls\n{body}\n')
        path.chmod(0o755)

    def calls(self, program: str) -> list[str]:
        notes = self.folder / f"{program}.calls"
        return notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(submit, "_LOOK_EVERY_S", 0.01)
    return FakeSlurm(folder)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "runs", STAGE)


def queue_line(run: Run, job_id: str, state: str = "PENDING") -> str:
    return f"{job_id}|{state}|None|N/A||{token(run.id, 'train')}"


def names(run: Run) -> list[str]:
    return [event["event"] for event in run.events()]


def test_the_token_is_written_down_before_sbatch_is_called(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", f"cp {run.path}/events.jsonl {slurm.folder}/then; echo 42")
    assert submit_run(run) == {"train": "42"}
    [then] = (slurm.folder / "then").read_text().splitlines()
    assert json.loads(then)["token"] == token(run.id, "train")
    assert names(run) == ["submitting", "submitted"]


def test_the_pickle_holds_only_where_to_look(slurm: FakeSlurm, run: Run) -> None:
    submit_run(run)
    data = (run.jobs_dir / "42_submitted.pkl").read_bytes()
    assert len(data) < 1000
    submission = pickle.loads(data)  # noqa: S301
    assert submission.function == Controller(str(run.path), "train")
    assert (run.jobs_dir / "train.sh").exists()


def test_a_refusal_is_passed_on_in_slurms_words(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(SubmissionRefused, match="invalid partition specified: gpu") as error:
        submit_run(run)
    assert error.value.exit_code == 3
    assert names(run) == ["submitting", "refused"]
    [found], _ = survey([run])
    assert found.state is StageState.FAILED


@pytest.mark.parametrize(
    "body",
    [
        "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1",
        "echo 'sbatch: error: Unable to contact slurm controller' >&2; exit 1",
        "echo 'Submitted, perhaps'",
    ],
)
def test_a_job_queued_behind_an_unclear_answer_is_adopted(
    slurm: FakeSlurm, run: Run, body: str
) -> None:
    slurm.answer("sbatch", body)
    slurm.answer("squeue", f"echo '{queue_line(run, '77')}'")
    assert submit_run(run) == {"train": "77"}
    assert len(slurm.calls("sbatch")) == 1
    assert (run.jobs_dir / "77_submitted.pkl").exists(), "the job would wait for it in vain"
    assert names(run) == ["submitting", "submitted"]


def test_a_job_that_shows_up_late_is_adopted(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", "echo garbage")
    line = queue_line(run, "77")
    slurm.answer("squeue", f"[ $(wc -l < {slurm.folder}/squeue.calls) -lt 3 ] || echo '{line}'")
    assert submit_run(run) == {"train": "77"}


def test_a_job_that_only_accounting_knows_is_adopted(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("sacct", f"echo '77|COMPLETED|0:0|None|n|{token(run.id, 'train')}'")
    assert submit_run(run) == {"train": "77"}


@pytest.mark.parametrize("queue", ["true", "exit 1"])
def test_an_answer_that_stays_unclear_is_never_sent_twice(
    slurm: FakeSlurm, run: Run, queue: str
) -> None:
    slurm.answer("sbatch", "echo garbage")
    slurm.answer("squeue", queue)
    with pytest.raises(SlurmUnreachable, match="not sent again"):
        submit_run(run)
    assert len(slurm.calls("sbatch")) == 1
    assert names(run) == ["submitting", "unclear"]
    [found], _ = survey([run])
    assert found.state is StageState.UNKNOWN


def test_slurm_sees_no_options_of_an_enclosing_job(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    slurm.answer("sbatch", f"env > {slurm.folder}/env; echo 42")
    submit_run(run)
    env = (slurm.folder / "env").read_text()
    assert "SLURM_MEM_PER_CPU" not in env
    assert "SBATCH_PARTITION" not in env
    assert "SLURM_CONF=/etc/slurm.conf" in env


def test_states_come_from_one_squeue(slurm: FakeSlurm, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "runs", STAGE, f"train-20260102-030405-{n:04x}") for n in range(5)]
    for number, run in enumerate(runs):
        run.record("submitting", stage="train")
        run.record("submitted", stage="train", job_id=str(100 + number))
    lines = "\n".join(f"{100 + n}|RUNNING|None|N/A|n|" for n in range(5))
    slurm.answer("squeue", f"cat <<'END'\n{lines}\nEND")
    surveys, notes = survey(runs)
    assert [found.state for found in surveys] == [StageState.RUNNING] * 5
    assert notes == []
    assert len(slurm.calls("squeue")) == 1
    assert slurm.calls("sacct") == []


def submitted(run: Run) -> None:
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id="42")


def test_what_squeue_forgot_sacct_knows(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("sacct", "echo '42|TIMEOUT|0:0|None|n|'")
    [found], _ = survey([run])
    failure = found.stages[0].report.failure
    assert failure is not None
    assert failure.failure_class.value == "timeout"
    [call] = slurm.calls("sacct")
    assert "--starttime=" in call, "sacct looks no further back than midnight by itself"


@pytest.mark.parametrize("sacct", ["exit 1", "echo 'accounting storage is disabled' >&2; exit 1"])
def test_without_accounting_scontrol_is_asked(slurm: FakeSlurm, run: Run, sacct: str) -> None:
    submitted(run)
    slurm.answer("sacct", sacct)
    slurm.answer("scontrol", "echo 'JobId=42 JobState=NODE_FAIL Reason=None ExitCode=0:0'")
    [found], _ = survey([run])
    failure = found.stages[0].report.failure
    assert failure is not None
    assert failure.failure_class.value == "infra"


def test_when_nobody_knows_the_state_is_unknown(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    [found], notes = survey([run])
    assert found.state is StageState.UNKNOWN
    assert notes == []
    slurm.answer("squeue", "echo 'slurm_load_jobs error: Unable to contact' >&2; exit 1")
    [found], [note] = survey([run])
    assert found.state is StageState.UNKNOWN
    assert "Unable to contact" in note


def test_ended_runs_are_not_asked_about(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    run.record("finished", stage="train", job_id="42", state="success", reason="")
    [found], _ = survey([run])
    assert found.state is StageState.SUCCESS
    assert slurm.calls("squeue") == []


def test_cancel_records_the_wish_first(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.answer("scancel", f"cp {run.path}/events.jsonl {slurm.folder}/then")
    assert cancel_run(run) == {"train": "42"}
    assert '"cancelling"' in (slurm.folder / "then").read_text()
    assert slurm.calls("scancel") == ["42"]


def test_cancel_of_an_ended_run_does_nothing(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'FAILED')}'")
    assert cancel_run(run) == {}
    assert slurm.calls("scancel") == []


def test_a_machine_without_slurm_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SiteError, match="no 'sbatch' on PATH"):
        SlurmClient().submit(Path("/x"))
