"""Whether training is a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spec_files import NEEDED, TRAIN, load

from rtdetr_slurm.automl import policy
from rtdetr_slurm.automl.policy import Asked, asked_of, with_evaluation
from rtdetr_slurm.contract import Kpi
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.model import Array
from rtdetr_slurm.plan.search import Objective, Search
from rtdetr_slurm.resources import schemas_dir, specs_dir
from rtdetr_slurm.site.discover import local_site
from rtdetr_slurm.site.profile import Site

DATA = TRAIN + "  val_data_sources: {image_dir: /data/val, json_file: /data/val.json}\n"
SMALL = "automl.parameters=[train.optim.lr]"


def site(**values: Any) -> Site:
    return Site.model_validate({"name": "here", "container": "none", **values})


def asked(
    folder: Path, *overrides: str, text: str = DATA, at: Site | None = None, action: str = "train"
) -> Asked:
    loaded = load(folder, text, SMALL, *overrides, action=action)
    spec = {**loaded.resolved(), "results_dir": "/results"}
    return asked_of(loaded, spec, at or site())


def search(found: Asked) -> Search:
    assert found.searching is not None
    return found.searching.search


def test_a_training_is_a_search_by_default(tmp_path: Path) -> None:
    found = asked(tmp_path)
    assert not found.explicit
    assert found.searching is not None
    assert found.searching.workers == Array(4)
    made = search(found)
    assert (made.folder, made.algorithm, made.trials, made.epochs) == (
        "/results/automl",
        "bayesian",
        20,
        10,
    )
    assert made.objectives == (Objective("val_mAP", "maximize"),)
    assert any((Path(folder) / "optuna").is_dir() for folder in made.python_path)


@pytest.mark.parametrize(
    "said",
    [
        "automl_policy=off",
        "automl.policy=off",
        "automl_policy=turn off AutoML",
        "automl_policy=disable AutoML",
        "automl.policy=no HPO",
        "automl.policy=Plain  training",
    ],
)
def test_off_in_all_its_words(tmp_path: Path, said: str) -> None:
    assert asked(tmp_path, said) == Asked(explicit=True)


def test_what_the_user_asks_for(tmp_path: Path) -> None:
    text = DATA + "automl_policy: on\ntrain: {results_dir: /mine, num_epochs: 30}\n"
    found = asked(
        tmp_path,
        "automl.trials=6",
        "automl.parallel=8",
        "automl.max_concurrent=2",
        "automl.metric=mAP50",
        "automl.algorithm=bfbo",
        "automl.deadline=2027-01-31T08:00+00:00",
        "automl.max_gpu_hours=2.5",
        text=text,
    )
    assert found.explicit
    assert found.searching is not None
    assert found.searching.workers == Array(6, throttle=2)
    made = search(found)
    assert (made.folder, made.trials, made.epochs) == ("/mine/automl", 6, 30)
    assert (made.algorithm, made.objective.metric) == ("bayesian", "val_mAP50")
    assert (made.deadline, made.gpu_hours) == ("2027-01-31T08:00:00+00:00", 2.5)
    losses = asked(tmp_path, "automl.objectives=[val_loss, parameters]")
    assert search(losses).objectives == (
        Objective("val_loss", "minimize"),
        Objective("parameters", "minimize"),
    )


def test_only_train_searches_by_default_and_a_distillation_on_request(tmp_path: Path) -> None:
    given = [one for one in NEEDED["distill"] if not one.startswith("dataset.")]
    assert asked(tmp_path, *given, action="distill") == Asked()
    found = asked(tmp_path, *given, "automl.policy=on", action="distill")
    assert found.searching is not None
    alone = ["export.checkpoint=/c.pth", "automl.policy=on"]
    never = asked(tmp_path, *alone, action="export")
    assert never.searching is None
    assert never.notes == ("AutoML: export is never searched around",)


def test_without_data_to_go_by(tmp_path: Path) -> None:
    [note] = asked(tmp_path, text=TRAIN).notes
    assert note.startswith("plain training: AutoML has nothing to go by without dataset.val_")
    with pytest.raises(RequestError, match=r"automl.policy: found on; .*automl.metric: train_loss"):
        asked(tmp_path, "automl.policy=on", text=TRAIN)
    found = asked(tmp_path, "automl.policy=on", "automl.metric=train_loss", text=TRAIN)
    assert search(found).objectives == (Objective(Kpi.TRAIN_LOSS, "minimize"),)
    assert found.searching is not None
    assert not found.searching.evaluates


def test_on_this_machine_on_request_and_one_at_a_time(tmp_path: Path) -> None:
    [note] = asked(tmp_path, at=local_site()).notes
    assert "searches only where it is asked to (--automl on), one trial at a time" in note
    found = asked(tmp_path, "automl.policy=on", at=local_site())
    assert found.searching is not None
    assert found.searching.workers == Array(1)


@pytest.mark.parametrize("missing", ["train.schema.json", "train.yaml"])
def test_until_the_schemas_are_generated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name, folder in (("schemas_dir", schemas_dir()), ("specs_dir", specs_dir())):
        mine = tmp_path / name
        mine.mkdir()
        for path in folder.glob("*"):
            if path.name != missing:
                (mine / path.name).symlink_to(path)
        monkeypatch.setattr(policy, name, lambda mine=mine: mine)
    [note] = asked(tmp_path).notes
    assert "AutoML is enabled, but not runnable until the schemas are generated" in note
    with pytest.raises(RequestError, match="found on; AutoML is enabled, but not runnable"):
        asked(tmp_path, "automl.policy=on")
    (tmp_path / "schemas_dir" / missing).write_text("{")
    assert "not runnable" in asked(tmp_path).notes[0]


def test_trials_are_first_compared_after_a_sixth_of_the_epochs(tmp_path: Path) -> None:
    epochs = ("automl.algorithm=asha", "train.num_epochs=27")
    assert search(asked(tmp_path, *epochs)).min_epochs == 4
    assert search(asked(tmp_path, *epochs, "train.validation_interval=5")).min_epochs == 5
    assert search(asked(tmp_path, *epochs, "automl.min_epochs=2")).min_epochs == 2


def test_the_sites_limit_of_trials(tmp_path: Path) -> None:
    at = site(limits={"max_trials": 5})
    found = asked(tmp_path, at=at)
    assert search(found).trials == 5
    assert found.notes == ("automl.trials: 5, the most that site 'here' allows",)
    with pytest.raises(SiteError, match=r"automl.trials: found 6; at most 5"):
        asked(tmp_path, "automl.trials=6", at=at)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["automl.algorithm=asha", "automl.min_epochs=1", "train.validation_interval=2"],
            "asha: ≤ 1, the epochs after",
        ),
        (["automl.algorithm=pbt", "train.validation_interval=6"], r"≤ 5, .*\(automl.interval\)"),
        (["wandb.run_id=mine"], r"wandb\.run_id: found 'mine'; allowed in a search: nothing"),
        (["automl.algorithm=hybrid"], "TAO's llm, hybrid, autoresearch ask a language model"),
        (
            ["automl.metric=val_mAP", "automl.objectives=[val_loss]"],
            "first of them, 'val_loss'",
        ),
        (["automl.objectives=[parameters, val_mAP]"], "a small detector that finds nothing"),
        (["automl.objectives=[val_mAP, val_mAP]"], "twice"),
        (
            ["automl.algorithm=asha", "automl.objectives=[val_mAP, parameters]"],
            "by one metric",
        ),
        (["automl.deadline=tomorrow"], "a date and time such as"),
        (["automl.ranges.train.optim.lr=[1e-5, 1e-3]"], "for all that lies between"),
        (["automl.ranges.train.optim.lr={low: 1}"], "{min, max, log, step}"),
        (["automl.ranges.train.optim.lr={min: 2, max: 1}"], "a min that is less than max"),
        (["automl.ranges.dataset.batch_size={values: [4, 8], weights: [1]}"], "one for each value"),
    ],
)
def test_what_cannot_be(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        asked(tmp_path, *overrides)


def test_taos_image_reports_no_costs(tmp_path: Path) -> None:
    at = site(engine="tao", container="apptainer", image="/i.sif")
    with pytest.raises(RequestError, match="found parameters, which TAO's image does not report"):
        asked(tmp_path, "automl.objectives=[val_mAP, parameters]", at=at)


def test_the_best_is_scored_on_the_test_data_else_on_those_of_training(tmp_path: Path) -> None:
    loaded = load(tmp_path, DATA, action="train")
    completed, note = with_evaluation(loaded, site())
    assert note.endswith("is scored on dataset.val_data_sources")
    resolved = completed.resolved()
    assert resolved["dataset"]["test_data_sources"] == resolved["dataset"]["val_data_sources"]
    assert resolved["evaluate"]["num_gpus"] == 1
    assert completed.actions == ("train",)
    test = "dataset.test_data_sources={image_dir: /t, json_file: /t.json}"
    completed, note = with_evaluation(load(tmp_path, DATA, test, action="train"), site())
    assert note.endswith("is scored on dataset.test_data_sources")
    assert completed.resolved()["dataset"]["test_data_sources"]["image_dir"] == "/t"
    wrong = load(tmp_path, DATA, "evaluate.is_quantized=true", action="train")
    with pytest.raises(RequestError, match=r"evaluate.is_quantized: found true"):
        with_evaluation(wrong, site())


def test_a_dry_run_is_none(tmp_path: Path) -> None:
    assert asked(tmp_path, "train.is_dry_run=true").searching is None
    with pytest.raises(RequestError, match=r"a dry run .* has no scores"):
        asked(tmp_path, "train.is_dry_run=true", "automl.policy=on")


def test_one_thing_ends_trainings_early(tmp_path: Path) -> None:
    """A trial that ends early by itself is a whole one to an algorithm that compares whole ones."""
    patient = "engine.early_stopping.patience=3"
    assert asked(tmp_path, patient).searching is not None
    with pytest.raises(RequestError, match=r"engine\.early_stopping\.patience: found 3; .* asha"):
        asked(tmp_path, patient, "automl.algorithm=asha")


def test_a_search_keeps_checkpoints_by_itself(tmp_path: Path) -> None:
    found = asked(tmp_path, "train.checkpointer.enable_topk=true")
    assert any(note.startswith("train.checkpointer: without effect") for note in found.notes)
