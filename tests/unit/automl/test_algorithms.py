"""What each algorithm stops, continues and draws."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from study_support import LAYERS, drive, memory, score, search, waiting

from rtdetr_slurm.automl.algorithms.extrapolation import hopeless, predict
from rtdetr_slurm.automl.algorithms.halving import Halving, Hyperband
from rtdetr_slurm.automl.algorithms.modelled import as_compared
from rtdetr_slurm.automl.history import TrialRecord, TrialState
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


def test_the_best_third_of_each_rung_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hyperband, "bracket", Halving.bracket)  # draws that go by no results
    study = create_study(search(tmp_path, "hyperband", trials=27, epochs=27), memory())
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
    assert waiting(study) == 1
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
    slow = {epoch: 0.1 * math.log(epoch + 1) for epoch in range(6)}  # levels off nowhere
    assert round(predict(slow, 27)[0], 3) == round(0.1 * math.log(27), 3)
    assert not hopeless(slow, [0.32], wanted)
    noisy = {epoch: value + (0.01, -0.01)[epoch % 2] for epoch, value in flat.items()}
    assert predict(noisy, 27)[1] > predict(noisy, 9)[1] > 0.01  # the further, the less is known
    lower = search(tmp_path, objectives=(Objective("val_loss", "minimize"),), epochs=27)
    falling = {epoch: 1 + 1 / (epoch + 1) for epoch in range(6)}
    assert hopeless(falling, [0.5], lower)
    assert not hopeless(falling, [1.2], lower)


@pytest.mark.parametrize("algorithm", ["asha", "bohb"])
def test_draws_go_by_the_results(tmp_path: Path, algorithm: str) -> None:
    study = create_study(search(tmp_path, algorithm, trials=40, epochs=27), memory())
    drive(study, 4, rising)
    drawn = [trial.values for trial in study.trials() if not trial.step]
    assert median(map(score, drawn[25:])) > median(map(score, drawn[1:10])) + 0.05


def record(number: int, epochs: int, value: float, state: TrialState) -> TrialRecord:
    """A trial whose score was the same in each of so many epochs, until the last one was worse."""
    curve = {**dict.fromkeys(range(epochs), value), epochs - 1: value - 0.01}
    scores = {"val_mAP": max(curve.values())}
    return TrialRecord(number, state, {}, 9, curve=curve, scores=scores, best_epoch=0)


def test_the_model_compares_at_the_last_rung_that_enough_have_come_to(tmp_path: Path) -> None:
    wanted = search(tmp_path, "bohb", epochs=9)  # three fields: five trials are enough
    spared = record(0, 9, 0.3, TrialState.COMPLETE)
    good = [record(number, 3, 0.5, TrialState.PRUNED) for number in (1, 2, 3)]
    running = record(4, 4, 0.4, TrialState.RUNNING)
    stopped = record(5, 1, 0.9, TrialState.PRUNED)
    begun = replace(record(6, 1, 0.1, TrialState.RUNNING), curve={}, scores={}, best_epoch=None)
    seen = as_compared(wanted, [1, 3], [spared, *good, running, stopped, begun])
    assert [(t.number, t.state, len(t.curve)) for t in seen] == [
        *((number, TrialState.PRUNED, 3) for number in range(5)),
        (5, TrialState.PRUNED, 1),
        (6, TrialState.RUNNING, 0),
    ]
    assert [t.scores["val_mAP"] for t in seen[:5]] == [0.3, 0.5, 0.5, 0.5, 0.4]


def test_the_model_compares_at_the_end_once_enough_have_come_to_it(tmp_path: Path) -> None:
    wanted = search(tmp_path, "bohb", epochs=9)
    known = replace(record(9, 1, 0.6, TrialState.COMPLETE), curve={}, best_epoch=None)
    ended = [record(number, 9, 0.5, TrialState.COMPLETE) for number in range(4)]
    stopped = record(5, 3, 0.7, TrialState.PRUNED)
    assert as_compared(wanted, [1, 3], [*ended, stopped, known]) == [*ended, stopped, known]
    few = as_compared(wanted, [1, 3], [*ended[:3], stopped, known])
    assert [t.state for t in few] == [TrialState.PRUNED] * 4 + [TrialState.COMPLETE]


@pytest.mark.parametrize("algorithm", ["asha", "pbt"])
def test_what_cannot_stop_a_trial_in_time_is_refused(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(RequestError, match=r"train.num_epochs is 1: train longer"):
        first_draws(search(tmp_path, algorithm, epochs=1), 1)
    both = (Objective("val_mAP", "maximize"), Objective("latency_ms", "minimize"))
    with pytest.raises(RequestError, match="with several objectives take the algorithm bayesian"):
        first_draws(search(tmp_path, algorithm, objectives=both), 1)
