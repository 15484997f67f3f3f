"""A study's trials from the draw to the result, in memory and in a journal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from study_support import BATCH, LAYERS, LR, memory, score, search, train, waiting

from rtdetr_slurm.automl.history import TrialState, pareto_front
from rtdetr_slurm.automl.study import create_study, first_draws, open_study
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Objective, Parameter


@pytest.mark.parametrize("algorithm", ["random", "qmc", "grid", "bayesian"])
def test_a_search_from_its_first_trial_to_its_last(tmp_path: Path, algorithm: str) -> None:
    wanted = search(tmp_path, algorithm, trials=20)
    draws = first_draws(wanted, 99)
    storage = memory()
    study = create_study(wanted, storage)
    assert waiting(study) == len(draws) == (19 if algorithm == "grid" else 20)
    taken = []
    while not study.is_over():
        taken.append(train(open_study(wanted, storage)))
    assert study.take() is None
    assert [one.number for one in taken] == [*range(len(draws))]
    assert taken[0].values == {LR.field: 1e-4, LAYERS.field: 6, BATCH.field: 4}
    for one, draw in zip(taken, draws, strict=True):
        assert draw is None or one.values == draw
        assert 1e-5 <= one.values[LR.field] <= 1e-2
        assert one.values[LAYERS.field] in range(1, 7)
        assert one.values[BATCH.field] in (2, 4, 8)
    assert len({str(one.values) for one in taken}) > 15
    best = study.best()
    assert best is not None
    assert best.scores == {"val_mAP": max(score(one.values) for one in taken)}
    assert (best.best_epoch, best.facts, best.state) == (0, {"seconds": 1.5}, TrialState.COMPLETE)


def test_a_sequential_search_is_repeatable_across_restarts(tmp_path: Path) -> None:
    wanted = search(tmp_path, "bayesian", trials=8)
    once, again = memory(), memory()
    first = create_study(wanted, once)
    second = [train(create_study(wanted, again))]
    values = [train(first).values for _ in range(8)]
    second += [train(open_study(wanted, again)) for _ in range(7)]
    assert values == [one.values for one in second]
    other = first_draws(search(tmp_path, "bayesian", seed=2), 2)
    assert other[1] != values[1]


def test_two_workers_never_get_the_same_trial(tmp_path: Path) -> None:
    wanted = search(tmp_path)
    create_study(wanted)
    workers = [open_study(wanted) for _ in range(3)]
    taken = [worker.take() for worker in workers for _ in range(3)]
    assert sorted(one.number for one in taken if one) == [*range(8)]
    assert taken[-1] is None
    assert not workers[0].is_over()


def test_whoever_takes_a_trial_over_gets_what_it_is(tmp_path: Path) -> None:
    wanted = search(tmp_path, "bayesian", trials=2)
    storage = memory()
    study = create_study(wanted, storage)
    train(study)
    assert study._stored.begin(1)  # and the worker dies before it has drawn anything
    taken_over = open_study(wanted, storage).assignment(1)
    assert taken_over == study.assignment(1)
    assert set(taken_over.values) == {LR.field, LAYERS.field, BATCH.field}


def test_the_best_epoch_counts_and_what_ended_stays(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, trials=2), memory())
    study.take()
    for epoch, value in enumerate((0.1, 0.4, float("nan"), 0.3)):
        assert study.report(0, epoch, {"val_mAP": value, "train_loss": 1.0})
    study.complete(0, {"gpu_hours": 0.5})
    study.fail(0, "infra", "node failure", {})
    assert not study.report(0, 4, {"val_mAP": 0.9})
    [trial, _] = study.trials()
    assert (trial.state, trial.best_epoch, trial.scores) == (
        TrialState.COMPLETE,
        1,
        {"val_mAP": 0.4},
    )
    assert trial.curve == {0: 0.1, 1: 0.4, 3: 0.3}
    assert trial.started is not None
    assert trial.ended is not None


def test_a_training_that_reports_no_metric_has_failed(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, trials=2), memory())
    study.take()
    study.report(0, 0, {"val_loss": 1.0})
    study.complete(0, {})
    failed = study.trials()[0]
    assert failed.state is TrialState.FAILED
    assert failed.failure == ("config", "it was trained to its end, and no epoch reported val_mAP")
    assert study.best() is None


def test_a_batch_size_that_ran_out_of_memory_is_not_tried_again(tmp_path: Path) -> None:
    study = create_study(search(tmp_path, trials=12), memory())
    study.take()
    study.fail(0, "oom_gpu", "CUDA out of memory", {})  # with the spec's own 4
    taken = [study.take() for _ in range(11)]
    assert {one.values[BATCH.field] for one in taken if one} == {2}
    reasons = {t.adjusted[BATCH.field] for t in study.trials() if t.adjusted}
    assert "8 drawn, trial 0 ran out of GPU memory with 4" in reasons


def test_a_value_that_may_not_exceed_another_is_lowered_to_it(tmp_path: Path) -> None:
    space = (
        Parameter("model.num_queries", "int", 300, low=50, high=400),
        Parameter("model.num_select", "int", 300, low=50, high=400, at_most="model.num_queries"),
    )
    study = create_study(search(tmp_path, "qmc", space=space, trials=16), memory())
    taken = [study.take() for _ in range(16)]
    assert all(t.values["model.num_select"] <= t.values["model.num_queries"] for t in taken if t)
    lowered = [trial for trial in study.trials() if trial.adjusted]
    assert lowered
    for trial in lowered:
        [reason] = trial.adjusted.values()
        assert reason.endswith(f"drawn, model.num_queries is {trial.values['model.num_queries']}")


def test_several_objectives_have_a_pareto_front(tmp_path: Path) -> None:
    objectives = (Objective("val_mAP", "maximize"), Objective("latency_ms", "minimize"))
    wanted = search(tmp_path, "bayesian", trials=5, objectives=objectives)
    study = create_study(wanted, memory())
    for mean, latency in ((0.5, 20.0), (0.4, 10.0), (0.4, 30.0), (0.6, 40.0)):
        taken = study.take()
        assert taken is not None
        study.report(taken.number, 0, {"val_mAP": mean, "latency_ms": latency})
        study.report(taken.number, 1, {"val_mAP": 0.1, "latency_ms": 99.0})
        study.complete(taken.number, {})
    assert [trial.number for trial in pareto_front(study.trials(), objectives)] == [0, 1, 3]
    best = study.best()
    assert best is not None
    assert best.scores == {"val_mAP": 0.6, "latency_ms": 40.0}
    assert study.take() is not None  # the model takes both


def test_a_search_can_be_extended(tmp_path: Path) -> None:
    for algorithm in ("random", "qmc", "grid", "bayesian"):
        whole = first_draws(search(tmp_path, algorithm, trials=40), 40)
        wanted = search(tmp_path, algorithm, trials=19)
        study = create_study(wanted, memory())
        assert study.extend(21) == 21
        assert waiting(study) == 40
        values = [trial.values for trial in study.trials() if trial.values]
        assert len({str(value) for value in values}) == len(values)
        if algorithm in ("random", "qmc"):
            assert values == whole


def test_a_grid_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="12 points even with two values of each number"):
        first_draws(search(tmp_path, "grid", trials=12), 1)


def test_what_an_earlier_search_found_is_known(tmp_path: Path) -> None:
    earlier = create_study(search(tmp_path / "a", "qmc"))
    for _ in range(8):
        train(earlier)
    journal = str(tmp_path / "a" / "journal.log")
    wanted = search(tmp_path / "b", "bayesian", warm_start=(journal,))
    study = create_study(wanted, memory())
    best = earlier.best()
    assert best is not None
    assert first_draws(wanted, 2)[1] == study.trials()[1].values == best.values
    assert waiting(study) == 8  # what is known is no trial of this search
    assert study.best() is None
    minimized = (Objective("val_loss", "minimize"),)
    with pytest.raises(RequestError, match="no finished trial there has val_loss"):
        first_draws(search(tmp_path / "c", warm_start=(journal,), objectives=minimized), 1)
    with pytest.raises(RequestError, match="there is no such file"):
        first_draws(search(tmp_path / "c", warm_start=(journal + "x",)), 1)


def test_a_line_that_a_crashed_node_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    wanted = search(tmp_path)
    study = create_study(wanted)
    journal = tmp_path / "journal.log"
    with journal.open("ab") as stream:
        stream.write(b'{"op_code":5,"worker')
    train(study)
    assert open_study(wanted).trials() == study.trials()
    assert study.trials()[0].state is TrialState.COMPLETE


def test_a_journal_that_is_damaged_while_it_is_open_is_named(tmp_path: Path) -> None:
    study = create_study(search(tmp_path))
    with (tmp_path / "journal.log").open("ab") as stream:
        stream.write(b'{"op_code":5,"wor\n{"op_code":9}\n')
    with pytest.raises(RequestError, match=r"journal.log: this is not the journal of a search"):
        study.trials()


def test_what_is_no_study_is_refused_by_name(tmp_path: Path) -> None:
    wanted = search(tmp_path)
    with pytest.raises(RequestError, match=r"journal.log: there is no such file"):
        open_study(wanted)
    (tmp_path / "journal.log").write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(RequestError, match=r"journal.log: this is not the journal of a search"):
        open_study(wanted)
    (tmp_path / "journal.log").unlink()
    create_study(wanted)
    with pytest.raises(RequestError, match="there is a search already"):
        create_study(wanted)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="this search has no study"):
        open_study(search(tmp_path))
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises(RequestError, match=r"journal\.log: this is not a regular file"):
        open_study(search(tmp_path))
