"""Sending a stage exactly once, whatever sbatch answers.

Small programs on PATH stand in for Slurm's, because a real one cannot be made to answer so; the
real one is in tests/cluster.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import EVALUATE, STAGE, make_run
from slurm_support import FakeSlurm, queue_line, survey

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Dependency, Origin
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import keep_secrets, secrets_file
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.slurm.client import SlurmClient
from rtdetr_slurm.slurm.commands import SubmissionRefused
from rtdetr_slurm.submission.cancel import cancel_run
from rtdetr_slurm.submission.sending import token
from rtdetr_slurm.submission.submit import submit_run

Capture = pytest.CaptureFixture[str]


def names(run: Run) -> list[str]:
    return [event["event"] for event in run.events()]


def test_the_token_is_written_down_before_sbatch_is_called(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", f"cat {run.path}/events/* > {slurm.folder}/then; echo 42")
    assert submit_run(run) == {"train": "42"}
    [then] = (slurm.folder / "then").read_text().splitlines()
    assert json.loads(then)["token"] == token(run.id, "train")
    assert names(run) == ["submitting", "submitted"]


def test_nothing_at_run_time_depends_on_a_pickle(slurm: FakeSlurm, run: Run) -> None:
    submit_run(run)
    assert [path.name for path in run.job_dir("train").iterdir()] == ["job.sh"]
    script = (run.job_dir("train") / "job.sh").read_text()
    assert f"/jobs/controller.zip stage {run.path} train) &\n" in script


def test_a_submit_that_dies_when_sbatch_has_answered_loses_nothing(
    slurm: FakeSlurm, run: Run
) -> None:
    """The job runs, and is found by what it writes itself."""
    slurm.answer("sbatch", "echo 42; kill -9 $PPID")
    code = "import sys; from pathlib import Path; from rtdetr_slurm.runs.run import open_run; "
    code += "from rtdetr_slurm.submission.submit import submit_run; "
    code += "submit_run(open_run(Path(sys.argv[1])))"
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert done.returncode == -9
    assert names(run) == ["submitting"]
    assert f"stage {run.path} train" in (run.job_dir("train") / "job.sh").read_text()
    run.record("started", stage="train", job_id="42", restart=0)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    found = survey(run)
    assert (found.state, found.stages[0].job_id) == (StageState.RUNNING, "42")


def test_a_refusal_is_passed_on_in_slurms_words(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("sbatch", "echo 'sbatch: error: invalid partition specified: gpu' >&2; exit 1")
    with pytest.raises(SubmissionRefused, match="invalid partition specified: gpu") as error:
        submit_run(run)
    assert error.value.exit_code == 3
    assert names(run) == ["submitting", "refused"]
    found = survey(run)
    assert found.state is StageState.FAILED


def test_a_run_that_is_cancelled_while_it_is_submitted(slurm: FakeSlurm, tmp_path: Path) -> None:
    """`cancel` finds no job yet; the wish is obeyed as soon as sbatch has answered."""
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    wish = json.dumps(
        {
            "event": "cancelling",
            "stage": "train",
            "timestamp": "2999-01-01T00:00:00+00:00",
            "schema_version": 1,
        }
    )
    slurm.answer("sbatch", f"echo '{wish}' > {run.path}/events/other.jsonl; echo 42")
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    with pytest.raises(SiteError, match="was cancelled while it was being submitted"):
        submit_run(run)
    assert len(slurm.calls("sbatch")) == 1
    assert slurm.calls("scancel") == ["42"]


def test_a_follow_up_goes_to_the_cluster_of_the_first(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", "case $* in *evaluate*) echo '43;east';; *) echo '42;east';; esac")
    assert submit_run(run) == {"train": "42", "evaluate": "43"}
    first, second = slurm.calls("sbatch")
    assert "--clusters" not in first
    assert "--clusters=east" in second
    line = queue_line(run, "42", "RUNNING")
    slurm.answer("squeue", f"case $* in *--clusters=east*) echo '{line}';; esac")
    assert survey(run).stages[0].state is StageState.RUNNING
    assert set(cancel_run(run).jobs) == {"train"}
    assert slurm.calls("scancel") == ["--clusters=east 42"]


def test_slurm_sees_no_options_of_an_enclosing_job(
    slurm: FakeSlurm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SBATCH_PARTITION", "x")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SLURM_JWT", "who I am")
    slurm.answer("sbatch", f"env > {slurm.folder}/env; echo 42")
    submit_run(run)
    env = (slurm.folder / "env").read_text()
    assert "SLURM_MEM_PER_CPU" not in env
    assert "SBATCH_PARTITION" not in env
    assert "SLURM_CONF=/etc/slurm.conf" in env
    assert "SLURM_JWT=who I am" in env


def test_a_machine_without_slurm_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SiteError, match="no 'sbatch' on PATH"):
        SlurmClient().sbatch(Path("/x"))


def test_all_stages_are_queued_at_once_behind_each_other(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    slurm.answer("sbatch", "case $* in *evaluate*) echo 43;; *) echo 42;; esac")
    assert submit_run(run) == {"train": "42", "evaluate": "43"}
    script = (run.job_dir("evaluate") / "job.sh").read_text()
    assert "#SBATCH --dependency=afterok:42\n" in script
    assert "dependency" not in (run.job_dir("train") / "job.sh").read_text()


def test_a_stage_whose_parent_failed_shows_as_skipped(slurm: FakeSlurm, tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs", STAGE, EVALUATE)
    for stage, job_id in (("train", "42"), ("evaluate", "43")):
        run.record("submitting", stage=stage)
        run.record("submitted", stage=stage, job_id=job_id)
    run.record("started", stage="train", job_id="42", restart=0)
    failure = {"state": "failed", "failure_class": "oom_gpu", "reason": "no memory"}
    run.record("finished", stage="train", job_id="42", restart=0, **failure)
    for reason in ("DependencyNeverSatisfied", "None"):
        slurm.answer("squeue", f"echo '{queue_line(run, '43', 'CANCELLED', 'evaluate', reason)}'")
        found = survey(run)
        assert found.state is StageState.FAILED
        assert found.stages[1].state is StageState.SKIPPED
        assert found.stages[1].detail == "train failed: no memory"


def test_a_run_that_ends_while_it_is_sent_leaves_no_secrets(
    slurm: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    secret = replace(STAGE.launch, secrets=("WANDB_API_KEY",))
    run = make_run(tmp_path, replace(STAGE, launch=secret), replace(EVALUATE, launch=secret))
    kept: list[bool] = []

    def fail_at_once(*args: Any) -> None:
        keep_secrets(*args)
        kept.append(secrets_file(run.path).exists())
        failure = {"state": "failed", "failure_class": "config", "reason": "no such class"}
        if args[1].name == "evaluate":  # the training, which was sent before, ends before this
            run.record("finished", stage="train", job_id="42", restart=0, **failure)

    monkeypatch.setattr("rtdetr_slurm.submission.backends.keep_secrets", fail_at_once)
    submit_run(run)
    assert kept == [True, True]
    assert not secrets_file(run.path).exists()


def test_a_dependency_on_another_run(slurm: FakeSlurm, tmp_path: Path) -> None:
    parent = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-aaaa")
    parent.record("submitting", stage="train")
    origin = Origin("train", str(parent.path))
    stage = replace(EVALUATE, depends_on=(Dependency(origin),))
    lost = make_run(tmp_path / "runs", stage, run_id="evaluate-20260102-000000-aaaa")
    with pytest.raises(SiteError, match="train-20260101-000000-aaaa has no job"):
        submit_run(lost)
    assert slurm.calls("sbatch") == []
    # Its number was never recorded: it is found by its token.
    slurm.answer("squeue", f"echo '{queue_line(parent, '41')}'")
    run = make_run(tmp_path / "runs", stage, run_id="evaluate-20260102-000000-bbbb")
    submit_run(run)
    assert "#SBATCH --dependency=afterok:41\n" in (run.job_dir("evaluate") / "job.sh").read_text()
    parent.record("started", stage="train", job_id="41", restart=0)
    failure = {"state": "failed", "failure_class": "config", "reason": "bad image"}
    parent.record("finished", stage="train", job_id="41", restart=0, **failure)
    late = make_run(tmp_path / "runs", stage, run_id="evaluate-20260102-000000-cccc")
    sent = len(slurm.calls("sbatch"))
    with pytest.raises(SiteError, match=f"is failed, so .*: `rtdetr-slurm resume {parent.id}`"):
        submit_run(late)
    assert len(slurm.calls("sbatch")) == sent, "it would wait in vain for a number of old"
    line = queue_line(run, "42", "PENDING", "evaluate", "DependencyNeverSatisfied")
    slurm.answer("squeue", f"echo '{line}'")
    [stage_report] = survey(run).stages
    assert stage_report.state is StageState.SKIPPED
    assert stage_report.detail == "train of train-20260101-000000-aaaa failed: bad image"


def test_a_parent_that_has_succeeded_is_not_waited_for(slurm: FakeSlurm, tmp_path: Path) -> None:
    parent = make_run(tmp_path / "runs", STAGE, run_id="train-20260101-000000-aaaa")
    parent.record("submitted", stage="train", job_id="41")
    parent.record("finished", stage="train", job_id="41", restart=0, state="success")
    stage = replace(EVALUATE, depends_on=(Dependency(Origin("train", str(parent.path))),))
    run = make_run(tmp_path / "runs", stage, run_id="evaluate-20260102-000000-bbbb")
    submit_run(run)
    assert "--dependency" not in (run.job_dir("evaluate") / "job.sh").read_text()
