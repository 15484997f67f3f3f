"""Results folders that are taken, in the way, or cannot be written to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run, write_checkpoint, write_dataset
from slurm_support import FakeSlurm, queue_line

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.contract import RUN_JSON
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.runs.claim import begin, new_claim, read_claim
from rtdetr_slurm.runs.run import Run, open_run
from rtdetr_slurm.slurm.commands import SubmissionRefused
from rtdetr_slurm.submission.claims import check_results
from rtdetr_slurm.submission.submit import submit_run

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """With a results folder of the user's."""
    return replace(STAGE, results_dir=str(tmp_path / "exp" / "train"))


def results(stage: Stage) -> Path:
    return Path(stage.results_dir)


def another(tmp_path: Path, stage: Stage, number: int) -> Run:
    return make_run(tmp_path / "runs", stage, run_id=f"train-20260102-030405-{number:04x}")


def test_the_folder_is_claimed_before_anything_is_queued(slurm: FakeSlurm, run: Run) -> None:
    folder = results(run.plan.stages[0])
    slurm.answer("sbatch", f"cp {folder}/claim.json {slurm.folder}/then; echo 42")
    submit_run(run)
    held = read_claim(folder)
    assert held is not None
    assert (slurm.folder / "then").read_text() == (folder / "claim.json").read_text()
    assert (held.id, held.run_dir, held.stage) == (f"{run.id}:train", str(run.path), "train")
    assert (held.restart, held.continues) == (None, False)


def test_a_second_run_in_one_folder_is_refused_by_name(
    slurm: FakeSlurm, tmp_path: Path, stage: Stage
) -> None:
    first, second = another(tmp_path, stage, 1), another(tmp_path, stage, 2)
    submit_run(first)
    slurm.answer("squeue", f"echo '{queue_line(first, '42')}'")
    with pytest.raises(RequestError) as refusal:
        submit_run(second)
    told = str(refusal.value)
    assert f"train.results_dir: results_dir {stage.results_dir} is in use by run {first.id}" in told
    assert "which is queued as job 42" in told
    assert f"rtdetr-slurm cancel {first.path}" in told
    assert len(slurm.calls("sbatch")) == 1
    assert [event["event"] for event in second.events()] == ["refused"]
    assert (second.path / "summary.json").exists()
    held = read_claim(results(stage))
    assert held is not None
    assert held.id == f"{first.id}:train"


def test_taos_training_does_not_begin_where_a_link_of_another_is(
    slurm: FakeSlurm, tmp_path: Path, stage: Stage
) -> None:
    results(stage).mkdir(parents=True)
    (results(stage) / "rtdetr_model_latest.pth").symlink_to("gone.pth")
    check_results(Plan((stage,)), {}, tmp_path / "run")
    taos = replace(stage, launch=replace(stage.launch, engine="tao"))
    with pytest.raises(RequestError, match="TAO would go on from it unasked"):
        check_results(Plan((taos,)), {}, tmp_path / "run")


def ended(slurm: FakeSlurm, run: Run) -> None:
    run.record("finished", stage="train", job_id="42", restart=0, state="success", reason="")


def killed(slurm: FakeSlurm, run: Run) -> None:
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'NODE_FAIL')}'")


def removed(slurm: FakeSlurm, run: Run) -> None:
    run.path.rename(run.path.parent.parent / "elsewhere")


@pytest.mark.parametrize("how", [ended, killed, removed])
def test_a_dead_claim_is_taken_over(
    slurm: FakeSlurm, tmp_path: Path, stage: Stage, how: Callable[[FakeSlurm, Run], None]
) -> None:
    first, second = another(tmp_path, stage, 1), another(tmp_path, stage, 2)
    submit_run(first)
    how(slurm, first)
    assert submit_run(second) == {"train": "42"}
    held = read_claim(results(stage))
    assert held is not None
    assert held.id == f"{second.id}:train"


def test_a_dry_run_records_no_end(slurm: FakeSlurm, tmp_path: Path, stage: Stage) -> None:
    """What only looks writes nothing, also not in the record of the folder's former run."""
    first, second = another(tmp_path, stage, 1), another(tmp_path, stage, 2)
    submit_run(first)
    killed(slurm, first)
    before = first.events()
    check_results(second.plan, second.spec, second.path)
    assert first.events() == before
    submit_run(second)
    assert [event["event"] for event in first.events()[len(before) :]] == ["finished"]


def test_what_nobody_knows_is_no_end(slurm: FakeSlurm, tmp_path: Path, stage: Stage) -> None:
    first, second = another(tmp_path, stage, 1), another(tmp_path, stage, 2)
    submit_run(first)
    with pytest.raises(RequestError, match=r"unknown as job 42(.|\n)*if it has ended, remove"):
        submit_run(second)


@pytest.mark.parametrize("there", [True, False])
def test_a_refused_submission_leaves_the_folder_as_it_was(
    slurm: FakeSlurm, tmp_path: Path, stage: Stage, there: bool
) -> None:
    first, second = another(tmp_path, stage, 1), another(tmp_path, stage, 2)
    if there:
        submit_run(first)
        ended(slurm, first)
    before = {p: p.read_text() for p in tmp_path.joinpath("exp").rglob("*.json")}
    slurm.answer("sbatch", "echo 'invalid account' >&2; exit 1")
    with pytest.raises(SubmissionRefused):
        submit_run(second)
    assert {p: p.read_text() for p in tmp_path.joinpath("exp").rglob("*.json")} == before
    assert (tmp_path / "exp").exists() == there


def test_two_stages_in_one_folder_under_two_names_are_refused(
    slurm: FakeSlurm, tmp_path: Path, stage: Stage
) -> None:
    (tmp_path / "alias").symlink_to("exp")
    other = replace(stage, name="again", results_dir=str(tmp_path / "alias" / "train"))
    with pytest.raises(RequestError, match=r"in use by run \S+ \(stage train\)"):
        submit_run(make_run(tmp_path / "runs", stage, other))
    assert not (tmp_path / "exp").exists()
    assert slurm.calls("sbatch") == []


# --- as a user sees it -------------------------------------------------------------------------
@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A train spec that goes to the local site; nothing of it is ever started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RTDETR_SLURM_SITE", "local")
    return write_dataset(tmp_path / "data")


def refusal(spec: Path, capsys: Capture, *arguments: str) -> str:
    """What `submit` says, with and without --dry-run; it writes nothing."""
    before = set(Path.cwd().rglob("*"))
    said = []
    for options in ([], ["--dry-run"]):
        assert main(["submit", str(spec), "results_dir=exp", *arguments, *options]) == 2
        said.append(capsys.readouterr().err)
    assert set(Path.cwd().rglob("*")) == before
    assert said[0] == said[1]
    return said[0]


def test_a_folder_that_holds_a_training(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    folder = tmp_path / "exp" / "train"
    for epoch in (3, 4):
        path = write_checkpoint(folder / f"model_epoch_{epoch:03d}.pth")
    told = refusal(spec, capsys)
    assert f"train.results_dir: {folder} already holds checkpoints of a training" in told
    earlier = "train.resume_training_checkpoint_path=exp/train/model_epoch_003.pth"
    assert f"in {folder} is model_epoch_004.pth: go on" in refusal(spec, capsys, earlier)
    elsewhere = write_checkpoint(tmp_path / "other" / "model_epoch_004.pth")
    other = f"train.resume_training_checkpoint_path={elsewhere}"
    assert "already holds checkpoints" in refusal(spec, capsys, other)
    for named in (str(path), path.as_uri()):
        resumed = f"train.resume_training_checkpoint_path={named}"
        assert main(["submit", str(spec), "results_dir=exp", resumed, "--dry-run"]) == 0


def test_a_folder_that_a_run_holds(
    spec: Path, tmp_path: Path, capsys: Capture, slurm: FakeSlurm, stage: Stage
) -> None:
    run = another(tmp_path, stage, 1)
    submit_run(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    slurm.calls_of("squeue").touch()
    assert f"in use by run {run.id} (stage train)" in refusal(spec, capsys)


@pytest.mark.parametrize("below", ["file", "file/further"])
def test_a_folder_that_cannot_be_made(
    spec: Path, tmp_path: Path, capsys: Capture, below: str
) -> None:
    (tmp_path / "file").touch()
    told = refusal(spec, capsys, f"train.results_dir={tmp_path}/{below}")
    assert f"train.results_dir: {tmp_path}/{below} cannot be written to: " in told
    assert f"{tmp_path}/file is no folder" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's folder")
def test_a_folder_that_may_not_be_written_to(
    spec: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may write anywhere, so the kernel's answer is put in its mouth."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path and real(path, mode))
    assert f"you may not write to {tmp_path}" in refusal(spec, capsys)


def test_a_kernel_that_refuses_is_passed_on(run: Run, slurm: FakeSlurm) -> None:
    """As root, for whom every folder looks writable."""
    stage = replace(STAGE, results_dir="/proc/results")
    proc = make_run(run.path.parent, stage, run_id="train-20260102-030405-0001")
    with pytest.raises(RequestError, match=r"/proc/results cannot be written to: "):
        submit_run(proc)
    assert slurm.calls("sbatch") == []


def test_what_a_start_has_begun_stays_claimed(slurm: FakeSlurm, run: Run) -> None:
    """A stage that was queued, and started, before another one was refused."""
    stage = run.plan.stages[0]
    again = replace(stage, name="again", results_dir=f"{run.path}/results/again")
    chain = make_run(run.path.parent, stage, again, run_id="train-20260102-030405-0002")
    folder = results(chain.plan.stages[0])
    assert (open_run(chain.path).path / RUN_JSON).exists()

    def started() -> None:
        begin(folder, new_claim(f"{chain.id}:train", restart=0, run_dir=str(chain.path)))

    slurm.answer("sbatch", "case $* in *again*) exit 1;; *) echo 42;; esac")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rtdetr_slurm.submission.submit.release_results", _then(started))
        with pytest.raises(SubmissionRefused):
            submit_run(chain)
    held = read_claim(folder)
    assert held is not None
    assert held.restart == 0


def _then(first: Callable[[], None]) -> Callable[..., None]:
    from rtdetr_slurm.submission.claims import release_results

    def release(taken: object) -> None:
        first()
        release_results(taken)  # type: ignore[arg-type]

    return release
