"""The key of a run: in its private file for as long as a job needs it, and in nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import (
    EVALUATE,
    SCORED,
    STAGE,
    claim_results,
    local_stage,
    make_run,
    write_checkpoint,
)
from slurm_support import FakeSlurm, submitted

from rtdetr_slurm import encryption
from rtdetr_slurm.cipher import encrypted
from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.processes import process_facts
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import secrets_file, secrets_of
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.site.variables import notes_on_secrets
from rtdetr_slurm.submission.prepare import Prepared, freeze, prepare
from rtdetr_slurm.submission.resume import resume_run
from rtdetr_slurm.submission.submit import submit_run

KEY, MARK = "hunter2-hunter2", "env:RTDETR_ENCRYPTION_KEY"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "COST", 4)
    monkeypatch.delenv(Env.ENCRYPTION_KEY, raising=False)


@pytest.fixture
def ask(
    tmp_path: Path, train_spec: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Prepared]:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))

    def ask(*overrides: str, text: str = "", action: str = "train", **more: Any) -> Prepared:
        own = tmp_path / "own.yaml"
        own.write_text(text + train_spec.read_text())
        return prepare(own, [SCORED, *overrides], action=action, site="local", **more)

    return ask


def holders(folder: Path, text: str = KEY) -> list[str]:
    """Files, of all that are in a folder, that have a text in them."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path.name for path in files if text.encode() in path.read_bytes()]


def encrypted_checkpoint(path: Path, key: str = KEY) -> Path:
    content = write_checkpoint(path).read_bytes()
    with path.open("wb") as stream:
        encrypted(lambda one: one.write(content), key)(stream)
    return path


def with_key(stage: Stage) -> Stage:
    return replace(stage, launch=replace(stage.launch, secrets=(Env.ENCRYPTION_KEY,)))


@pytest.mark.parametrize("way", ["spec", "override", "file", "environment"])
def test_a_key_is_moved_out_before_anything_is_written(
    tmp_path: Path, ask: Callable[..., Prepared], monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    text, overrides = "", []
    if way == "spec":
        text = f"encryption_key: {KEY}\n"
    elif way == "override":
        overrides = [f"encryption_key={KEY}"]
    elif way == "file":
        overrides = [f"encryption_key=file://{path}"]
    else:
        monkeypatch.setenv(Env.ENCRYPTION_KEY, KEY)
    prepared = ask(*overrides, text=text, then=["evaluate"])
    assert any("without the key nobody can read them" in note for note in prepared.plan.notes)
    run = freeze(prepared, lambda _: None)
    assert [stage.launch.secrets for stage in run.plan.stages] == [(Env.ENCRYPTION_KEY,)] * 2
    assert run.spec["encryption_key"] == MARK
    assert holders(run.path) == []
    if way in ("override", "file"):
        assert f"encryption_key={MARK}" in run.manifest.spec.overrides
    assert KEY not in repr(prepared)
    assert prepared.loaded.key == KEY


def test_slurm_gets_it_by_the_private_file_alone(tmp_path: Path, slurm: FakeSlurm) -> None:
    run = make_run(tmp_path / "runs", with_key(STAGE), with_key(EVALUATE))
    slurm.answer("sbatch", f"cat $1 > {slurm.folder}/script; env > {slurm.folder}/environ; echo 42")
    submit_run(run, key=KEY)
    file = secrets_file(run.path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert holders(tmp_path) == [file.name]
    assert holders(run.path) == []
    for stage in run.plan.stages:
        assert secrets_of(run.path, stage) == {Env.ENCRYPTION_KEY: KEY}
        local = replace(stage, launch=replace(stage.launch, scheduler="local"))
        assert secrets_of(run.path, local) == {Env.ENCRYPTION_KEY: KEY}
        run.record("finished", stage=stage.name, job_id="42", state="success")
    keep_summary(run)
    assert holders(tmp_path) == []


def ended(run: Run) -> None:
    submitted(run)
    facts = {"stage": "train", "job_id": "42", "restart": 0}
    run.record("started", **facts)
    run.record("finished", **facts, state="failed", failure_class="timeout", reason="time is over")
    keep_summary(run)


def test_a_run_that_has_ended_is_resumed_with_the_same_key_only(
    tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "runs", with_key(STAGE))
    ended(run)
    [task] = run.plan.tasks()
    claim_results(run, task)
    encrypted_checkpoint(task.results_dir / "model_epoch_000.pth")
    with pytest.raises(RequestError, match=r"its key is gone, .* give it in the environment as"):
        resume_run(run)
    monkeypatch.setenv(Env.ENCRYPTION_KEY, "another")
    with pytest.raises(RequestError, match=r"model_epoch_000.pth is encrypted with another key"):
        resume_run(run)
    assert slurm.calls("sbatch") == []
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    monkeypatch.setenv(Env.ENCRYPTION_KEY, f"file://{path}")
    notes: list[str] = []
    assert resume_run(run, on_note=notes.append) == {"train": "42"}
    assert notes == []
    assert secrets_of(run.path, run.plan.stages[0]) == {Env.ENCRYPTION_KEY: KEY}


FIELDS = [
    ("train", "train.pretrained_model_path"),
    ("train", "train.resume_training_checkpoint_path"),
    ("evaluate", "evaluate.checkpoint"),
]


@pytest.mark.parametrize(("action", "field"), FIELDS)
def test_a_file_of_another_key_is_refused_before_anything_is_queued(
    tmp_path: Path, ask: Callable[..., Prepared], action: str, field: str
) -> None:
    given = f"{field}={encrypted_checkpoint(tmp_path / 'a.pth')}"
    ask(given, f"encryption_key={KEY}", action=action)
    for key, problem in (
        ((), "a.pth is encrypted, and there is no key: give it in the environment as RTDETR_"),
        (("encryption_key=wrong",), "a.pth is encrypted with another key than the one that is"),
    ):
        with pytest.raises(RequestError, match=problem):
            ask(given, *key, action=action)
    path = tmp_path / "a.pth"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RequestError, match=r"a\.pth is damaged: it is encrypted"):
        ask(given, f"encryption_key={KEY}", action=action)


def test_the_parents_checkpoint_needs_its_key(ask: Callable[..., Prepared], tmp_path: Path) -> None:
    spec = ask().loaded.resolved()
    run = make_run(tmp_path / "runs", with_key(local_stage(tmp_path / "trained")), spec=spec)
    [task] = run.plan.tasks()
    claim_results(run, task)
    pid = str(os.getpid())
    run.record("submitting", stage="train")
    run.record("submitted", stage="train", job_id=pid, **process_facts(pid))
    parent: Sequence[str] = ("evaluate.checkpoint=",)
    with pytest.raises(RequestError, match="encrypts what it writes, and there is no key: give"):
        ask(*parent, action="evaluate", parent=str(run.path))
    ask(*parent, f"encryption_key={KEY}", action="evaluate", parent=str(run.path))
    encrypted_checkpoint(task.results_dir / "model_epoch_000.pth")
    run.record("finished", stage="train", job_id=pid, restart=0, state="success")
    with pytest.raises(RequestError, match=r"job\.parent: evaluate\.checkpoint: .* no key"):
        ask(*parent, action="evaluate", parent=str(run.path))
    ask(*parent, f"encryption_key={KEY}", action="evaluate", parent=str(run.path))


def test_taos_image_gets_no_key(tmp_path: Path, train_spec: Path) -> None:
    image = tmp_path / "tao.sif"
    image.touch()
    site = tmp_path / "site.yaml"
    site.write_text(
        f"scheduler: slurm\ncontainer: apptainer\nimage: {image}\nengine: tao\n"
        f"run_root: {tmp_path}/runs\npartition: gpu\ntime: 60\n"
    )
    with pytest.raises(RequestError, match="runs in TAO's image, which does not encrypt"):
        prepare(train_spec, [f"encryption_key={KEY}"], action="train", site=str(site))


def test_no_note_says_that_jobs_do_without_it() -> None:
    site = Site(container="none")
    assert [*notes_on_secrets(site, {Env.ENCRYPTION_KEY: KEY})] == []
    assert [*notes_on_secrets(site, {"HF_TOKEN": "x"})] != []
