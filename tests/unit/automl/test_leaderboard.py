"""Trials in the order of what they are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from search_support import search_in

from rtdetr_slurm.automl.baseline import Baseline
from rtdetr_slurm.automl.history import Continued, TrialRecord, TrialState
from rtdetr_slurm.automl.leaderboard import (
    leaderboard,
    leaderboard_csv,
    short_names,
    whole_curve,
)
from rtdetr_slurm.automl.report import study_of
from rtdetr_slurm.plan.search import Objective, Parameter


def trial(number: int, state: TrialState, *scores: float, **facts: Any) -> TrialRecord:
    """With a score for each epoch."""
    curve = dict(enumerate(scores))
    best = max(curve, key=lambda epoch: curve[epoch], default=None)
    told = {} if best is None else {"val_mAP": curve[best]}
    values = {"train.optim.lr": 0.001, "model.num_queries": 50 + number}
    return TrialRecord(number, state, values, 3, curve=curve, scores=told, best_epoch=best, **facts)


TRIALS = [
    trial(0, TrialState.COMPLETE, 0.1, 0.3, 0.2),
    trial(1, TrialState.FAILED, 0.9, failure=("oom_gpu", "out of memory")),
    trial(2, TrialState.RUNNING, 0.8),
    trial(3, TrialState.PRUNED, 0.3),
    trial(4, TrialState.WAITING),
    trial(5, TrialState.COMPLETE, 0.2, 0.5, 0.5),
]


def test_the_best_come_first_and_what_has_no_result_last() -> None:
    search = search_in(Path("/x"))
    found = leaderboard(search, TRIALS)
    assert [(one.rank, one.trial.number) for one in found] == [
        *((1, 5), (2, 0), (3, 3)),
        *((None, 2), (None, 1), (None, 4)),
    ]
    least = replace(search, objectives=(Objective("val_mAP", "minimize"),))
    assert [one.trial.number for one in leaderboard(least, TRIALS)][:3] == [0, 3, 5]


def test_as_a_file() -> None:
    search = search_in(Path("/x"))
    lines = leaderboard_csv(search, leaderboard(search, TRIALS), Baseline("test_mAP", 0.25))
    assert lines.splitlines()[:3] == [
        "rank,trial,state,val_mAP,test_mAP,best_epoch,last_epoch,on_pareto_front,continues,seconds,"
        "gpu_hours,failure,evidence,train.optim.lr,model.num_queries",
        ",baseline,,,0.25,,,,,,,,,,",
        "1,5,complete,0.5,,1,2,,,,,,,0.001,55",
    ]
    assert len(lines.splitlines()) == 2 + 5  # which is all but the one that waits


def test_the_shortest_names_that_are_different() -> None:
    fields = ("train.optim.lr", "train.optim.lr_backbone", "distill.optim.lr", "model.dropout")
    space = tuple(Parameter(field, "float", 0.1, low=0.1, high=0.2) for field in fields)
    assert [*short_names(search_in(Path("/x"), space=space)).values()] == [
        *("train.optim.lr", "lr_backbone", "distill.optim.lr", "dropout"),
    ]


def test_a_curve_goes_back_to_the_trials_that_were_continued() -> None:
    first = trial(0, TrialState.PRUNED, 0.1, 0.2, 0.25)
    second = replace(trial(1, TrialState.PRUNED), curve={2: 0.3, 3: 0.4}, continues=Continued(0, 1))
    third = replace(trial(2, TrialState.COMPLETE), curve={4: 0.5}, continues=Continued(1, 3))
    trials = {one.number: one for one in (first, second, third)}
    assert whole_curve(third, trials) == {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4, 4: 0.5}
    # A damaged journal may go round in circles.
    trials[0] = replace(first, continues=Continued(2, 3))
    assert len(whole_curve(third, trials)) == 5


def test_plots_take_trials_that_continue_each_other_as_one() -> None:
    first = trial(0, TrialState.PRUNED, 0.1, 0.4)
    other = trial(1, TrialState.FAILED)
    same = replace(first, number=2, curve={2: 0.3}, scores={"val_mAP": 0.3}, best_epoch=2)
    same = replace(same, continues=Continued(0, 1))
    # A member of a population goes on with other values, and is another trial.
    changed = replace(same, number=3, values={**first.values, "train.optim.lr": 0.002})
    found = study_of(search_in(Path("/x")), [first, other, same, changed]).trials
    assert [one.values for one in found] == [None, None, [0.4], [0.3]]
    assert found[2].intermediate_values == {0: 0.1, 1: 0.4, 2: 0.3}
    assert found[3].params["train.optim.lr"] == 0.002
