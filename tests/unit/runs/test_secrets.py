"""Secrets of a run: in one private file, for those that the plan names, until the run has ended."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run

from rtdetr_slurm.errors import UserError
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.runs.report import keep_summary
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.secrets import forget_secrets, keep_secrets, secrets_file, secrets_of

NAMES = ("WANDB_API_KEY", "NOT_SET")


def with_secrets(*names: str) -> Stage:
    return replace(STAGE, launch=replace(STAGE.launch, secrets=names))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, with_secrets(*NAMES))


def written(run: Run) -> Path:
    """The run's file, in a folder that is there."""
    file = secrets_file(run.path)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    return file


def test_they_come_back_as_they_were_and_only_those_that_are_named(run: Run) -> None:
    [stage] = run.plan.stages
    value = 'a "b",\n$(c) \udcff é'
    old = os.umask(0)
    try:
        keep_secrets(run.path, stage, {"WANDB_API_KEY": value, "OTHER": "x", "NOT_SET": ""})
    finally:
        os.umask(old)
    file = secrets_file(run.path)
    assert run.path not in file.parents
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secrets_of(run.path, stage) == {"WANDB_API_KEY": value}
    file.write_text(json.dumps({"LD_PRELOAD": "/tmp/x.so"}))
    assert secrets_of(run.path, stage) == {}


def test_stages_share_the_file_and_local_jobs_need_none(run: Run) -> None:
    keep_secrets(run.path, with_secrets("A"), {"A": "1", "B": "2"})
    keep_secrets(run.path, with_secrets("B"), {"B": "2"})
    assert secrets_of(run.path, with_secrets("A", "B")) == {"A": "1", "B": "2"}
    local = replace(with_secrets("A"), launch=replace(STAGE.launch, scheduler="local"))
    assert secrets_of(run.path, local) == {}
    keep_secrets(run.path / "nowhere", STAGE, {"A": "1"})  # names none, so writes none


def test_those_that_are_gone_or_damaged_are_told_of_and_never_quoted(run: Run) -> None:
    [stage] = run.plan.stages
    with pytest.raises(UserError, match=r"\.json .* is gone.*submit again"):
        secrets_of(run.path, stage)
    for content in ('{"WANDB_API_KEY": ["hunter2"]}', '"hunter2'):
        written(run).write_text(content)
        with pytest.raises(UserError, match="cannot be read; submit again") as caught:
            secrets_of(run.path, stage)
        assert "hunter2" not in str(caught.value)


def test_a_folder_that_others_can_enter_gets_none(run: Run) -> None:
    written(run).parent.chmod(0o755)
    with pytest.raises(UserError, match=r"\.secrets-\d+ .* not a folder of yours alone"):
        keep_secrets(run.path, run.plan.stages[0], {"WANDB_API_KEY": "x"})
    assert not secrets_file(run.path).exists()


def test_what_a_killed_writer_has_left_of_them_goes_too(run: Run) -> None:
    [stage] = run.plan.stages
    code = "import os, signal, sys; from pathlib import Path; import rtdetr_slurm.files as files; "
    code += "files.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL); "
    code += "files.write_atomic(Path(sys.argv[1]), 'hunter2', mode=0o600)"
    argv = [sys.executable, "-c", code, str(written(run))]
    assert subprocess.run(argv, check=False).returncode == -signal.SIGKILL
    [left] = run.path.parent.glob(".secrets-*/.*")
    keep_secrets(run.path, stage, {"WANDB_API_KEY": "x"})
    forget_secrets(run.path, lambda: False)
    assert not left.exists()


@pytest.mark.parametrize(
    ("events", "gone"),
    [
        ([("submitting", {}), ("submitted", {"job_id": "7"})], False),
        ([("started", {"job_id": "7"}), ("requeued", {"job_id": "7"})], False),
        ([("submitted", {"job_id": "7"}), ("cancelling", {"job_id": "7"})], False),
        ([("finished", {"job_id": "7", "state": "success"})], True),
        ([("submitting", {}), ("withdrawn", {"reason": "r"})], True),
        ([("submitting", {}), ("unclear", {"reason": "r"})], True),
        ([("unclear", {"reason": "r"}), ("submitting", {})], False),
    ],
)
def test_they_go_when_no_job_needs_them_any_more(
    run: Run, events: list[tuple[str, dict[str, str]]], gone: bool
) -> None:
    keep_secrets(run.path, run.plan.stages[0], {"WANDB_API_KEY": "x"})
    for event, facts in events:
        run.record(event, stage="train", **facts)
    keep_summary(run)
    assert secrets_file(run.path).exists() is not gone
    forget_secrets(run.path, lambda: False)
    forget_secrets(run.path, lambda: False)
