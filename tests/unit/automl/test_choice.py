"""Which checkpoint is the best one of a search, and whose are left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from search_support import choose as write_best
from search_support import lay_out_trial, search_in, searching_run

from rtdetr_slurm.automl.choice import Choice, choose, kept_trials
from rtdetr_slurm.automl.finalize import best_spec
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.leaderboard import leaderboard
from rtdetr_slurm.plan.search import Direction, Objective
from rtdetr_slurm.runs.best import Best
from rtdetr_slurm.runs.trials import searching_stage

CURVES = {0: {0: 0.1, 1: 0.3, 2: 0.2}, 1: {0: 0.4, 1: 0.5, 2: 0.45}, 2: {0: 0.05}}


def records(curves: Mapping[int, Mapping[int, float]]) -> list[TrialRecord]:
    """Trials with these scores, and one that failed; a later one has fewer parameters."""
    ended = [
        TrialRecord(
            number,
            TrialState.COMPLETE,
            {"train.optim.lr": 0.001 * number},
            3,
            curve=curve,
            scores={"val_mAP": max(curve.values()), "parameters": 9.0 - number},
        )
        for number, curve in curves.items()
    ]
    return [*ended, TrialRecord(3, TrialState.FAILED, {}, 3, curve={0: 0.9})]


def test_the_best_whole_checkpoint_of_all_that_ended(tmp_path: Path) -> None:
    run = searching_run(tmp_path)
    stage, search = searching_stage(run)
    folders = {number: lay_out_trial(run, number, curve) for number, curve in CURVES.items()}
    lay_out_trial(run, 3, {0: 0.9})

    def chosen(direction: Direction = "maximize") -> tuple[Choice, tuple[int, int] | None]:
        wanted = search_in(search.path, objectives=(Objective("val_mAP", direction),))
        choice = choose(stage, wanted, leaderboard(wanted, records(CURVES)))
        return choice, choice.best and (choice.best.trial, choice.best.epoch)

    choice, found = chosen()
    assert found == (1, 1)
    assert choice.best is not None
    assert (choice.best.value, choice.best.values) == (0.5, {"train.optim.lr": 0.001})
    assert chosen("minimize")[1] == (2, 0)
    # A damaged one is passed over, and so is an epoch that has left none.
    best = folders[1] / "model_epoch_001.pth"
    best.write_bytes(best.read_bytes()[:100])
    (folders[1] / "model_epoch_002.pth").unlink()
    choice, found = chosen()
    assert found == (1, 0)
    assert [problem.startswith(str(best)) for problem in choice.passed_over] == [True]
    for folder in folders.values():
        for path in folder.glob("*.pth"):
            path.unlink()
    assert chosen()[0] == Choice(None)


def test_the_spec_of_the_best_trial(tmp_path: Path) -> None:
    spec = {"results_dir": "/elsewhere", "train": {"optim": {"lr": 1e-4}}}
    run = searching_run(tmp_path, spec=spec)
    lay_out_trial(run, 0, {0: 0.5})
    best = write_best(run, 0, 0, **{"train.optim.lr": 0.01})
    head, _, text = best_spec(run, best).partition("\n")
    assert head == f"# As trial 0, epoch 0: val_mAP 0.5000 of {run.id} was trained."
    assert text == (
        'results_dir: "/elsewhere"\ntrain:\n  optim:\n    lr: 0.01\n'
        'job:\n  action: "train"\nautoml:\n  policy: "off"\n'
    )
    own = searching_run(tmp_path, "train-20260102-030405-beef", spec={"results_dir": f"{tmp_path}"})
    own.manifest.spec.resolved["results_dir"] = f"{own.path}/results"  # type: ignore[index]
    assert 'results_dir: ""' in best_spec(own, best)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"retention": "best"}, {1}),
        ({"retention": "topk", "keep": 2}, {0, 1}),
        (
            # Trial 2 has the fewest parameters; trial 0 is worse than 1 in both.
            {"objectives": (Objective("val_mAP", "maximize"), Objective("parameters", "minimize"))},
            {1, 2},
        ),
    ],
)
def test_whose_checkpoints_are_left(changes: dict[str, Any], kept: set[int]) -> None:
    search = search_in(Path("/x"), **changes)
    best = Best(1, "train", 1, "model_epoch_001.pth", "0" * 64, "val_mAP", 0.5)
    assert kept_trials(search, leaderboard(search, records(CURVES)), best) == kept
