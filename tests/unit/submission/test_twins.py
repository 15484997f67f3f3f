"""What counts as the same submission, and while it is under way only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from launch_support import STAGE, make_run, write_dataset
from slurm_support import FakeSlurm, queue_line, submitted

from rtdetr_slurm.cli.main import main
from rtdetr_slurm.contract import RUN_JSON
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.submission.twins import find_twin

OTHER_ID = "train-20260103-030405-ffff"


def twin_of(run: Run) -> str | None:
    """The id of the run that does the same as this one, whether or not this one is there."""
    site = str(run.manifest.site["name"])
    found = find_twin(run.path, run.plan, run.spec, site, complete=True)
    return found and found.run_id


def another(run: Run, **stage: object) -> Run:
    return make_run(run.path.parent, replace(STAGE, **stage), run_id=OTHER_ID)


def test_the_same_run_is_found_while_it_is_queued_or_runs(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    again = another(run)
    assert again.plan != run.plan, "their folders differ"
    for state in ("PENDING", "RUNNING"):
        slurm.answer("squeue", f"echo '{queue_line(run, '42', state)}'")
        assert twin_of(again) == run.id
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'FAILED')}'")
    assert twin_of(again) is None


@pytest.mark.parametrize(
    "stage",
    [
        {"name": "evaluate"},
        {"resources": replace(STAGE.resources, time_min=91)},
        {"results_dir": "/elsewhere"},
        {"container": None},
    ],
)
def test_whatever_else_differs_makes_another_run(
    slurm: FakeSlurm, run: Run, stage: dict[str, object]
) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    assert twin_of(another(run, **stage)) is None
    assert slurm.calls("squeue") == [], "only what is the same is asked for"


def test_another_spec_or_site_makes_another_run(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42')}'")
    changed = {"train": {"seed": 2}}
    assert find_twin(run.path.parent / OTHER_ID, run.plan, changed, "here", complete=True) is None
    again = another(run)
    assert find_twin(again.path, again.plan, again.spec, "there", complete=True) is None


def test_an_answer_that_nobody_knows_counts_until_it_is_given_up(
    slurm: FakeSlurm, run: Run
) -> None:
    again = another(run)
    assert twin_of(again) is None, "nothing of the other was sent"
    run.record("submitting", stage="train")
    assert twin_of(again) == run.id
    run.record("unclear", stage="train")
    assert twin_of(again) is None, "should it turn up, it ends at once"


def test_what_slurm_cannot_be_asked_about_counts(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    again = another(run)
    slurm.answer("squeue", "exit 1")
    assert twin_of(again) == run.id
    slurm.answer("squeue", "true")
    assert twin_of(again) is None, "Slurm has no such job"


def test_what_is_being_cancelled_does_not_count(slurm: FakeSlurm, run: Run) -> None:
    submitted(run)
    slurm.answer("squeue", f"echo '{queue_line(run, '42', 'RUNNING')}'")
    run.record("cancelling", stage="train", job_id="42")
    assert twin_of(another(run)) is None


def test_a_damaged_run_is_no_hindrance(slurm: FakeSlurm, run: Run) -> None:
    again = another(run)
    (run.path / RUN_JSON).write_text("{")
    assert twin_of(again) is None


def test_submit_refuses_and_a_dry_run_says_so(
    slurm: FakeSlurm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    site = tmp_path / "site.yaml"
    site.write_text("{name: here, container: none, python: /usr/bin/python3, run_root: runs}\n")
    spec = str(write_dataset(tmp_path / "data"))
    command = ["submit", spec, "--site", str(site)]
    assert main([*command, "--name", "first"]) == 0
    [first] = (tmp_path / "runs").iterdir()
    slurm.answer("squeue", f"echo '42|PENDING|None|N/A||rtdetr-slurm:{first.name}:train|'")
    capsys.readouterr()
    assert main(command) == 2
    told = capsys.readouterr().err
    assert f"run {first.name} does exactly this already (train queued as job 42)" in told
    assert "--again" in told
    assert main([*command, "--dry-run"]) == 0
    assert f"submit would refuse this: run {first.name}" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == [first]
    assert main([*command, "train.seed=7"]) == 0
    assert main([*command, "--again"]) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 3
