"""The site's command hears of a run, and changes nothing about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import local_stage, make_run

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.plan.model import Dependency, Origin, Plan, StageTask
from rtdetr_slurm.runs import notices
from rtdetr_slurm.runs.failures import Failure
from rtdetr_slurm.runs.notices import tell_end, tell_start
from rtdetr_slurm.runs.run import Run

OOM = Failure(FailureClass.OOM_GPU, "CUDA out\x1b[31m of\nmemory")


def run_with(folder: Path, script: str) -> Run:
    """A run of two stages that have been sent, on a site with this command."""
    hook = folder / "hook"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
    train = local_stage(folder / "train")
    evaluate = replace(
        local_stage(folder / "evaluate"), name="evaluate", depends_on=(Dependency(Origin("train")),)
    )
    run = make_run(folder, train, evaluate)
    plan = Plan(run.plan.stages, notify_command=(str(hook), "--to", "x y"))
    for stage in plan.stages:
        run.record("submitted", stage=stage.name, job_id="7")
    return replace(run, manifest=replace(run.manifest, plan=plan))


def finish(run: Run, name: str, state: str, failure: Failure | None = None) -> None:
    task = StageTask(run.plan.stage(name))
    facts: dict[str, Any] = {"failure_class": failure.failure_class.value} if failure else {}
    run.record("started", stage=name, job_id="7")
    run.record("finished", stage=name, job_id="7", state=state, **facts)
    tell_end(run, task, "7", failure)


def told(folder: Path) -> list[dict[str, Any]]:
    path = folder / "told"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


KEEP = 'echo "$@" >> "$0.args"; cat >> "${0%hook}told"'


def test_start_and_end_are_told_once(tmp_path: Path) -> None:
    run = run_with(tmp_path, KEEP)
    tell_start(run, "7")
    tell_start(run, "7")
    finish(run, "train", "success")
    assert [one["event"] for one in told(tmp_path)] == ["started"]
    finish(run, "evaluate", "success")
    tell_end(run, StageTask(run.plan.stages[1]), "7", None)
    start, end = told(tmp_path)
    assert (start["run_id"], start["job_id"], start["site"]) == (run.id, "7", "here")
    assert (end["event"], end["state"]) == ("ended", "success")
    assert [one["name"] for one in end["stages"]] == ["train", "evaluate"]
    arguments = (tmp_path / "hook.args").read_text().splitlines()
    assert arguments == ["--to x y started", "--to x y ended"]


def test_a_failure_ends_the_chain_behind_it(tmp_path: Path) -> None:
    run = run_with(tmp_path, KEEP)
    finish(run, "train", "failed", OOM)
    failed, ended = told(tmp_path)
    assert (failed["event"], failed["stage"], failed["failure_class"]) == (
        "failed",
        "train",
        "oom_gpu",
    )
    assert failed["reason"] == "CUDA out [31m of memory"
    assert (ended["event"], ended["state"]) == ("ended", "failed")
    assert [one["state"] for one in ended["stages"]] == ["failed", "skipped"]


def test_a_run_that_is_sent_again_begins_and_ends_again(tmp_path: Path) -> None:
    run = run_with(tmp_path, KEEP)
    for _ in range(2):
        tell_start(run, "7")
        finish(run, "train", "failed", OOM)
        run.record("resumed", stage="train", restart=0)
        run.record("submitted", stage="train", job_id="8")
    events = [one["event"] for one in told(tmp_path)]
    assert events == ["started", "failed", "ended"] * 2


def test_stages_that_are_sent_while_the_first_one_runs_make_no_start_of_it(
    tmp_path: Path,
) -> None:
    run = run_with(tmp_path, KEEP)
    for number in range(3):
        tell_start(run, "7")
        run.record("submitted", stage="evaluate", job_id=f"{number + 8}")
    finish(run, "train", "failed", OOM)
    run.record("submitted", stage="evaluate", job_id="12")
    tell_end(run, StageTask(run.plan.stages[1]), "12", None)
    assert [one["event"] for one in told(tmp_path)] == ["started", "failed", "ended"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no channel >&2; exit 3", "hook ended with 3: no channel"),
        ("sleep 60", "took longer than 0.3 s and was killed"),
        ("exec 0<&-; exit 0", None),
    ],
)
def test_what_becomes_of_the_command_is_said(
    tmp_path: Path, script: str, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "TIME_LIMIT_S", 0.3)
    run = run_with(tmp_path, script)
    if message is None:
        tell_start(run, "7")
        return
    with pytest.raises(SiteError, match=message):
        tell_start(run, "7")


def test_a_command_that_is_missing_is_said(tmp_path: Path) -> None:
    run = run_with(tmp_path, KEEP)
    (tmp_path / "hook").unlink()
    with pytest.raises(SiteError, match="hook cannot be started"):
        tell_start(run, "7")


def test_without_a_command_nothing_is_recorded(tmp_path: Path) -> None:
    run = run_with(tmp_path, KEEP)
    silent = replace(run, manifest=replace(run.manifest, plan=Plan(run.plan.stages)))
    tell_start(silent, "7")
    finish(silent, "train", "failed", OOM)
    assert told(tmp_path) == []
