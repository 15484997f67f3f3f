"""The search of a submission: bounded by data and site, begun where nothing else has begun."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launch_support import make_run, write_dataset
from search_support import search_in, searching

from rtdetr_slurm.automl.study import create_study, journal_of, open_study
from rtdetr_slurm.cli import terminal
from rtdetr_slurm.cli.main import main
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.limits import check_limits, within_gpu_hours
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.plan.search import Parameter
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.spec import load_spec
from rtdetr_slurm.submission.search import draws_of, fitted
from rtdetr_slurm.submission.sending import Sending
from rtdetr_slurm.submission.studies import check_search, make_study

Capture = pytest.CaptureFixture[str]

SITE = """\
name: here
container: none
accelerator: cpu
run_root: {root}
"""
ALONE = ["automl.parameters=[train.optim.lr]", "automl.trials=3"]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`submit` of a spec with data to score on, for a cluster."""
    monkeypatch.chdir(tmp_path)
    spec = write_dataset(tmp_path / "data")
    site = tmp_path / "site.yaml"
    site.write_text(SITE.format(root=tmp_path / "runs"))
    scored = f"{{image_dir: {tmp_path}/data/images, json_file: {tmp_path}/data/coco.json}}"
    data = f"dataset.val_data_sources={scored}"
    return lambda *more: main(["submit", str(spec), "--site", str(site), data, *ALONE, *more])


def test_a_dry_run_shows_the_first_trials(submit: Callable[..., int], capsys: Capture) -> None:
    assert submit("--dry-run") == 0
    out = capsys.readouterr().out
    assert "AutoML: 3 trials of one epoch each, 3 at a time, by bayesian, for more val_mAP" in out
    assert "searched  train.optim.lr: 1e-05 to 0.001, logarithmic" in out
    assert "trial 0   the spec's own: lr 0.0001" in out
    assert "array     3 jobs of these" in out
    assert "command   finds the best trial of train" in out
    assert "#SBATCH --array=0-2%3" in out
    assert submit("--dry-run", "--automl", "off") == 0
    assert "AutoML" not in capsys.readouterr().out


def test_a_person_is_asked_for_a_search_that_nobody_has_asked_for(
    submit: Callable[..., int], tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "is_answered", lambda: True)
    for answer in ("n\n", "\n", ""):
        monkeypatch.setattr("sys.stdin", io.StringIO(answer))
        assert submit() == 2
        err = capsys.readouterr().err
        assert "Begin this search? [y/N] " in err
        assert "nothing was submitted; --automl off trains once" in err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "answered"), [(["--yes"], True), (["--automl", "on"], True), ([], False)]
)
def test_nobody_is_asked(
    submit: Callable[..., int],
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    answered: bool,
) -> None:
    monkeypatch.setattr(terminal, "is_answered", lambda: answered)
    monkeypatch.setattr("sys.stdin", None)
    monkeypatch.setattr("rtdetr_slurm.cli.submit._submit", lambda *_: 0)
    monkeypatch.setattr("rtdetr_slurm.submission.prepare.freeze", lambda *_, **__: None)
    assert submit(*options) == 0
    err = capsys.readouterr().err
    assert ("AutoML is the default; --automl off trains once" in err) == (not options)
    assert "AutoML: 3 trials" in err


def test_templates_train_once(submit: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    arguments = ["render", "data/train.yaml", "--site", "site.yaml"]
    assert main([*arguments, "train.num_epochs=2"]) == 0
    out, err = capsys.readouterr()
    assert "templates train once" in err
    assert "--array" not in out
    assert main([*arguments, "--automl", "on"]) == 2


# --- bounds -----------------------------------------------------------------------------------
def of(stage: Stage) -> Plan:
    return Plan((stage,))


def batches(tmp_path: Path, high: int, *overrides: str) -> Any:
    sizes = Parameter("dataset.batch_size", "int", 4, low=2, high=high)
    other = Parameter("train.optim.lr", "float", 1e-4, low=1e-5, high=1e-3)
    stage = searching(tmp_path, space=(sizes, other))  # two nodes with two GPUs
    loaded = load_spec(write_dataset(tmp_path / "data"), overrides)
    plan = fitted(of(stage), loaded, 24)
    assert plan.stages[0].search is not None
    return {one.field: one for one in plan.stages[0].search.space}, plan.notes


def test_no_batch_is_larger_than_the_data(tmp_path: Path) -> None:
    space, notes = batches(tmp_path, 8)
    assert space["dataset.batch_size"].high == 6
    assert notes == (
        "AutoML: dataset.batch_size is searched up to 6, as 24 training images are 6 for each of "
        "4 GPUs",
    )
    assert [*space] == ["dataset.batch_size", "train.optim.lr"]


def test_a_batch_of_the_users_own_that_is_larger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"batch_size: found 2 to 8; allowed: ≤ 6, as 24 train"):
        batches(tmp_path, 8, "automl.ranges.dataset.batch_size={min: 2, max: 8}")


def test_what_is_shown_is_what_will_be_trained_with(tmp_path: Path) -> None:
    queries = Parameter("model.num_queries", "int", 100, low=100, high=101)
    select = Parameter("model.num_select", "int", 90, low=90, high=300, at_most="model.num_queries")
    stage = searching(tmp_path, space=(queries, select), algorithm="random", trials=9)
    for values in draws_of(of(stage)):
        assert values is not None
        assert values["model.num_select"] <= values["model.num_queries"]


def test_a_search_gets_what_is_left_of_the_sites_gpu_hours(tmp_path: Path) -> None:
    site = Site.model_validate({"limits": {"max_gpu_hours": 6}})
    stage = searching(tmp_path)  # two workers with four GPUs
    timed = replace(stage, resources=replace(stage.resources, time_min=60))
    after = replace(timed, name="after", search=None, array=None)
    limited, _ = within_gpu_hours((timed, after), site.limits)
    assert limited.search is not None
    assert limited.search.gpu_hours == 2
    check_limits((limited, after), site)
    assert timed.search is not None
    asked = replace(timed, search=replace(timed.search, gpu_hours=5))
    assert within_gpu_hours((asked, after), site.limits) == (asked, after)
    with pytest.raises(SiteError, match=r"9 GPU hours .* at most 6: .*, or automl.max_gpu_hours"):
        check_limits((asked, after), site)
    short = replace(stage, resources=replace(stage.resources, time_min=15))
    assert within_gpu_hours((short,), site.limits) == (short,)


def test_a_deadline_that_has_passed(submit: Callable[..., int], capsys: Capture) -> None:
    assert submit("--dry-run", "automl.deadline=2026-01-31 08:00") == 2
    assert "automl.deadline: found 2026-01-31T08:00:00" in capsys.readouterr().err


# --- the study --------------------------------------------------------------------------------
def test_a_study_is_made_once_and_never_in_place_of_another(tmp_path: Path) -> None:
    stage = searching(tmp_path / "out", algorithm="random")
    assert stage.search is not None
    run = make_run(tmp_path, stage)
    create_study(search_in(tmp_path / "out" / "automl", algorithm="random", trials=9))
    check_search(run.plan)  # what a refused submission has left
    make_study(Sending(stage))
    study = open_study(stage.search)
    assert len(study.trials()) == 4
    assert study.take() is not None
    journal = journal_of(stage.search).read_bytes()
    with pytest.raises(RequestError, match=r"results_dir: .*/automl holds a search already"):
        check_search(run.plan)
    with pytest.raises(RequestError, match="holds a search already"):
        make_study(Sending(stage))
    make_study(Sending(stage, 1, None, "once more"))
    assert journal_of(stage.search).read_bytes() == journal


def test_what_is_known_from_earlier_searches(
    submit: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    stage = searching(tmp_path / "before")
    run = make_run(tmp_path / "runs", stage)
    plain = make_run(
        tmp_path / "runs", replace(stage, search=None, array=None),
        run_id="train-20260102-030405-0001",
    )  # fmt: skip
    for run_id, why in ((plain.id, "has no search"), ("train-none", "train-none")):
        warm = f"automl.warm_start={json.dumps([run_id])}"
        assert submit(warm, "--dry-run") == 2
        err = capsys.readouterr().err
        assert "automl.warm_start[0]: " in err
        assert why in err
    assert submit(f"automl.warm_start={json.dumps([run.id])}", "--dry-run") == 2
    assert "journal" in capsys.readouterr().err
