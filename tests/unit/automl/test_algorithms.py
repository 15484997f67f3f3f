"""What each algorithm stops, continues and draws."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from study_support import LAYERS, drive, memory, score, search

from rtdetr_slurm.automl.algorithms.extrapolation import hopeless, predict
from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.study import create_study, first_draws
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Objective


def rising(values: Mapping[str, Any], epoch: int) -> float:
    """A curve that orders trials at every epoch as it does at the last."""
    return score(values) * (1 - 0.9 ** (epoch + 1))


ENDED = (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("algorithm", ["asha", "hyperband", "hyperband_es", "bohb", "dehb", "pbt"])
def test_a_search_is_worked_off(tmp_path: Path, algorithm: str, workers: int) -> None:
    epochs = 9 if algorithm == "pbt" else 27
    wanted = search(tmp_path, algorithm, trials=24, epochs=epochs, population=8, interval=3)
    study = create_study(wanted, memory())
    trained = drive(study, workers, rising)
    trials = study.trials()
    assert sum(not trial.step for trial in trials) == 24
    assert all(trial.state in ENDED for trial in trials)
    for trial in trials:  # whoever goes on begins after the checkpoint that it goes on from
        first = 0 if trial.continues is None else trial.continues.epoch + 1
        assert [*trial.curve] == [*range(first, first + len(trial.curve))]
        if trial.continues is not None and algorithm != "pbt":
            assert trial.values == trials[trial.continues.trial].values
    assert trained == sum(len(trial.curve) for trial in trials)
    assert trained <= 24 * epochs * (1.0 if algorithm == "pbt" else 0.5)
    best = study.best()
    assert best is not None
    assert best.state is TrialState.COMPLETE
    draws = [draw for draw in first_draws(wanted, 24) if draw is not None]
    if algorithm != "hyperband_es" or workers == 1:
        assert best.scores["val_mAP"] >= 0.9 * max(rising(draw, epochs - 1) for draw in draws)


def test_the_best_third_of_each_rung_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, "asha", trials=27, epochs=27), memory())
    assert drive(study, 1, rising) == 27 + 9 * 2 + 3 * 6 + 1 * 18
    trials = study.trials()
    order = sorted(trials[:27], key=lambda trial: -rising(trial.values, 0))
    assert {trial.step for trial in trials if trial.step.endswith("@1")} <= {
        f"{trial.number}@1" for trial in order[:9]
    }
    assert [t.number for t in trials if t.state is TrialState.COMPLETE] == [study.best().number]  # type: ignore[union-attr]


def test_a_trial_that_was_stopped_too_early_is_continued_later(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, "asha", trials=3, epochs=9), memory())
    for value in (0.5, 0.4):
        taken = study.take()
        assert taken is not None
        assert not study.report(taken.number, 0, {"val_mAP": value})
        study.prune(taken.number, {})
    taken = study.take()
    assert taken is not None
    assert not study.report(taken.number, 0, {"val_mAP": 0.3})
    study.prune(taken.number, {})
    again = study.take()
    assert again is not None
    assert (again.number, again.continues) == (3, study.trials()[3].continues)
    assert again.continues is not None
    assert (again.continues.trial, again.continues.epoch) == (0, 0)
    assert study.take() is None
    assert not study.is_over()


def test_two_workers_that_continue_the_same_trial_at_once_do_it_once(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, "asha", trials=3, epochs=9), memory())
    for value in (0.5, 0.4, 0.3):
        taken = study.take()
        assert taken is not None
        study.report(taken.number, 0, {"val_mAP": value})
        study.prune(taken.number, {})
    wanted = study._algorithm.continuation(study.trials())
    study._add_continuation()
    study._algorithm.continuation = lambda trials: wanted  # type: ignore[method-assign]
    study._add_continuation()  # another, that had not seen it yet
    del study._algorithm.continuation  # type: ignore[method-assign]
    assert study.open_slots() == 1
    assert study.take() is not None
    assert study.take() is None


def test_hyperband_judges_fewer_trials_the_later_it_judges(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, "hyperband", trials=49, epochs=27), memory())
    counts = [study._algorithm.bracket(number) for number in range(49)]  # type: ignore[attr-defined]
    assert [counts.count(bracket) for bracket in range(4)] == [27, 12, 6, 4]
    assert {*counts[:12]} == {0, 1, 2, 3}


def test_the_worst_of_a_population_goes_on_as_a_better_one(tmp_path: Path) -> None:
    wanted = search(tmp_path, "pbt", trials=8, epochs=12, population=8, interval=4)
    study = create_study(wanted, memory())
    drive(study, 8, rising)
    trials = study.trials()
    taken_over = [
        trial
        for trial in trials
        if trial.continues is not None
        and not trial.step.startswith(f"{trial.continues.trial}@")
        and trials[trial.continues.trial].values != trial.values
    ]
    assert taken_over
    for trial in taken_over:
        assert trial.continues is not None
        source = trials[trial.continues.trial]
        assert trial.continues.epoch in (3, 7)  # a generation's end
        assert trial.continues.epoch in study.kept(source.curve)
        assert trial.values[LAYERS.field] == source.values[LAYERS.field]
        assert source.curve[trial.continues.epoch] >= max(
            trials[int(trial.step.partition("@")[0])].curve[3], 0
        )


def test_a_member_that_failed_goes_on_as_another(tmp_path: Path) -> None:
    wanted = search(tmp_path, "pbt", trials=4, epochs=8, population=4, interval=4)
    study = create_study(wanted, memory())
    study.take()
    study.fail(0, "config", "loss is not finite", {})
    drive(study, 3, rising)
    [replaced] = [trial for trial in study.trials() if trial.step == "0@4"]
    assert replaced.state in ENDED


def test_a_curve_that_cannot_reach_the_best_is_hopeless(tmp_path: Path) -> None:
    wanted = search(tmp_path, "hyperband_es", epochs=27)
    flat = {epoch: 0.3 - 0.2 / (epoch + 1) for epoch in range(6)}
    predicted, error = predict(flat, 27)
    assert (round(predicted, 3), round(error, 3)) == (round(0.3 - 0.2 / 27, 3), 0.0)
    assert hopeless(flat, [0.4], wanted)
    assert not hopeless(flat, [0.25], wanted)
    assert not hopeless({0: 0.1, 1: 0.1, 2: 0.1}, [0.9], wanted)  # too little to go by
    assert not hopeless({0: 0.0, 1: 0.0, 2: 0.01, 3: 0.05}, [0.9], wanted)  # it has just begun
    lower = search(tmp_path, objectives=(Objective("val_loss", "minimize"),), epochs=27)
    falling = {epoch: 1 + 1 / (epoch + 1) for epoch in range(6)}
    assert hopeless(falling, [0.5], lower)
    assert not hopeless(falling, [1.2], lower)


def test_the_model_prefers_what_trained_long_and_well(tmp_path: Path) -> None:
    wanted = search(tmp_path, "bohb", trials=40, epochs=27)
    study = create_study(wanted, memory())
    drive(study, 4, rising)
    drawn = [trial.values for trial in study.trials() if not trial.step]
    early, late = drawn[1:10], drawn[25:40:2]  # every other draw goes by no results
    assert median(map(score, late)) > median(map(score, early)) + 0.05


@pytest.mark.parametrize("algorithm", ["asha", "pbt"])
def test_what_cannot_stop_a_trial_in_time_is_refused(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(RequestError, match=r"train.num_epochs is 1: train longer"):
        first_draws(search(tmp_path, algorithm, epochs=1), 1)
    both = (Objective("val_mAP", "maximize"), Objective("latency_ms", "minimize"))
    with pytest.raises(RequestError, match="with several objectives take the algorithm bayesian"):
        first_draws(search(tmp_path, algorithm, objectives=both), 1)
