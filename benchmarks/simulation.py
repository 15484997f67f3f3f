"""A search on a simulated clock, whose trainings are recorded ones: ours, and NVIDIA TAO's."""

from __future__ import annotations

import csv
import heapq
import itertools
import json
import math
import os
import random
import statistics
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from curves import BATCH_SIZES, FIELDS
from optuna.storages import InMemoryStorage

from rtdetr_slurm.automl.history import Assignment
from rtdetr_slurm.automl.ranges import own_range
from rtdetr_slurm.automl.study import create_study
from rtdetr_slurm.plan.search import Objective, Parameter, Search
from rtdetr_slurm.spec import ExperimentConfig

HERE = Path(__file__).resolve().parent
METRIC = "val_mAP"
BATCH = "dataset.batch_size"
DEFAULTS = {
    "train.optim.lr": 1e-4,
    "train.optim.lr_backbone": 1e-5,
    "train.optim.weight_decay": 1e-4,
    BATCH: 4,
}
SPACE = (
    *(
        Parameter(name, "float", DEFAULTS[name], low=low, high=high, log=True)
        for name, (low, high) in FIELDS.items()
    ),
    Parameter(BATCH, "categorical", DEFAULTS[BATCH], choices=BATCH_SIZES),
)
OWN_SPACE = tuple(
    parameter
    for name, value in DEFAULTS.items()
    if (parameter := own_range(name, value, {}, ExperimentConfig.model_construct()))
)
"""What is searched where nobody gives a range."""
LINEAR_SPACE = (
    *(replace(parameter, log=False) for parameter in SPACE[:-1]),
    Parameter(BATCH, "int", DEFAULTS[BATCH], low=min(BATCH_SIZES), high=max(BATCH_SIZES)),
)
"""The ranges of SPACE as TAO draws from them."""
RANDOM_TRIALS = 60
_NEIGHBOURS, _SMOOTH = 4, 0.02
START_EPOCHS = 0.5
"""What starting a training costs, in epochs: the container, the data, the model."""


# --- recorded trainings ----------------------------------------------------------------------
class Curves:
    """Scores by draw and epoch."""

    def __init__(self, table: Path) -> None:
        self.draws: list[dict[str, float]] = []
        self.scores: list[list[float]] = []
        self.seconds: list[float] = []
        with table.open() as stream:
            for _, lines in itertools.groupby(csv.DictReader(stream), lambda row: row["draw"]):
                rows = list(lines)
                self.draws.append({name: float(rows[0][name]) for name in (*FIELDS, BATCH)})
                self.scores.append([float(row[METRIC]) for row in rows])
                self.seconds.append(float(rows[0]["seconds"]))
        self.epochs = max(map(len, self.scores))
        whole = [i for i, scores in enumerate(self.scores) if len(scores) == self.epochs]
        self.draws = [self.draws[i] for i in whole]
        self.scores = [self.scores[i] for i in whole]
        # How long an epoch took depends on what else the machine did: by batch size, the median.
        by_batch: dict[float, list[float]] = {}
        for i in whole:
            by_batch.setdefault(self.draws[whole.index(i)][BATCH], []).append(self.seconds[i])
        self._seconds = {batch: statistics.median(took) for batch, took in by_batch.items()}
        self._places = [_place(draw) for draw in self.draws]
        self._curves: dict[tuple[float, ...], list[float]] = {}

    def curve(self, values: Mapping[str, Any]) -> list[float]:
        """Scores by epoch of a training with these values: the mean of the recorded ones nearest to
        it, weighted by their distances, so that close draws have close scores, as trainings do."""
        at = _place(values)
        if at not in self._curves:
            pairs = ((math.dist(at, place), i) for i, place in enumerate(self._places))
            weights = [(1 / (d + _SMOOTH) ** 2, i) for d, i in sorted(pairs)[:_NEIGHBOURS]]
            total = math.fsum(weight for weight, _ in weights)
            self._curves[at] = [
                math.fsum(weight * self.scores[i][epoch] for weight, i in weights) / total
                for epoch in range(self.epochs)
            ]
        return self._curves[at]

    def rank_correlation(self, epochs: int) -> float:
        """Of what is best after so many epochs with what is in the end, of the draws that lie in
        the ranges searched."""
        from scipy.stats import spearmanr

        own = [
            scores
            for draw, scores in zip(self.draws, self.scores, strict=True)
            if all(low <= draw[name] <= high for name, (low, high) in FIELDS.items())
        ]
        early = [max(scores[:epochs]) for scores in own]
        return float(spearmanr(early, list(map(max, own))).statistic)

    def score(self, values: Mapping[str, Any], epoch: int) -> float:
        return self.curve(values)[epoch]

    def epoch_seconds(self, values: Mapping[str, Any]) -> float:
        return self._seconds[min(self._seconds, key=lambda size: abs(size - values[BATCH]))]


def _place(values: Mapping[str, Any]) -> tuple[float, ...]:
    """In the unit cube, rates on a logarithmic scale."""
    rates = [
        math.log(max(float(values[name]), low) / low) / math.log(high / low)
        for name, (low, high) in FIELDS.items()
    ]
    return (*rates, math.log2(float(values[BATCH]) / BATCH_SIZES[0]) / 2)


# --- a search by simulated workers -----------------------------------------------------------
@dataclass
class Outcome:
    """What a search cost.

    Attributes:
        epochs, seconds: trained, and on the clock, until the target was reached; None: never.
        best_epochs, best_seconds: the same for the best score of all.
        steps: seconds of each start of a training, in the order of their starts.
        held: seconds of all workers together, each until it found nothing more to do.
    """

    epochs: float | None = None
    seconds: float | None = None
    best: float = 0.0
    best_epochs: float = 0.0
    best_seconds: float = 0.0
    all_epochs: int = 0
    steps: list[float] = field(default_factory=list)
    held: float = 0.0

    @property
    def busy(self) -> float:
        """Share of the workers' time that a training ran."""
        return sum(self.steps) / self.held

    def busy_in_batches(self, workers: int) -> float:
        """The same, if as many as there are workers began together, and the next when all had
        ended."""
        batches = [self.steps[at : at + workers] for at in range(0, len(self.steps), workers)]
        return sum(self.steps) / sum(max(batch) * len(batch) for batch in batches)

    def scored(self, score: float, target: float, epochs: int, now: float) -> None:
        if score > self.best:
            self.best, self.best_epochs, self.best_seconds = score, epochs, now
        if score >= target and self.epochs is None:
            self.epochs, self.seconds = epochs, now


def search_of(
    algorithm: Any,
    seed: int,
    epochs: int,
    trials: int,
    space: tuple[Parameter, ...] = SPACE,
    **fields: Any,
) -> Search:
    """Trials are first compared after a sixth of the epochs, as in a search that says nothing."""
    objectives = (Objective(METRIC, "maximize"),)
    given = {"min_epochs": epochs // 6, **fields}
    return Search("/nowhere", algorithm, seed, space, objectives, trials, epochs, **given)


def run_ours(
    search: Search, curves: Curves, workers: int, target: float, whole: bool = True
) -> Outcome:
    """Until the study is over; unless it is the `whole` that matters, until the target."""
    study = create_study(search, InMemoryStorage())
    outcome = Outcome()
    trained, now, free = 0, 0.0, workers
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    events: list[tuple[float, int, Assignment, int]] = []  # an epoch ends

    def begin() -> None:
        nonlocal free
        while free and (taken := study.take()) is not None:
            free -= 1
            began[taken.number] = now
            epoch = taken.continues.epoch + 1 if taken.continues else 0
            end = now + (1 + START_EPOCHS) * curves.epoch_seconds(taken.values)
            heapq.heappush(events, (end, taken.number, taken, epoch))

    begin()
    while events:
        now, number, taken, epoch = heapq.heappop(events)
        trained += 1
        score = curves.score(taken.values, epoch)
        outcome.scored(score, target, trained, now)
        if outcome.epochs is not None and not whole:
            return outcome
        if not study.report(number, epoch, {METRIC: score}):
            study.prune(number, {})
        elif epoch + 1 == taken.epochs:
            study.complete(number, {})
        else:
            end = now + curves.epoch_seconds(taken.values)
            heapq.heappush(events, (end, number, taken, epoch + 1))
            continue
        free += 1
        ended[number] = now
        begin()
        if not study.awaits_others:  # a worker that finds nothing ends, and frees its GPUs
            outcome.held += free * now
            free = 0
    outcome.held += free * now
    outcome.steps = [ended[number] - start for number, start in began.items()]
    outcome.all_epochs = trained
    return outcome


def full_trainings(seed: int) -> list[dict[str, Any]]:
    """Draws of trainings to the end: what the target is the best of."""
    chance = random.Random(f"full/{seed}")
    return [
        {
            **{n: low * (high / low) ** chance.random() for n, (low, high) in FIELDS.items()},
            BATCH: chance.choice(BATCH_SIZES),
        }
        for _ in range(RANDOM_TRIALS)
    ]


# --- TAO's search --------------------------------------------------------------------------------
@contextmanager
def tao_search(python: str) -> Iterator[Callable[..., Any]]:
    """What asks TAO's search, one after another: `ask(begin=...)`, then `ask(results=...)`, which
    tells scores by recommendation and gets the next recommendations, None at the end."""
    process = subprocess.Popen(
        [python, str(HERE / "sweep_tao.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONHASHSEED": "1",  # its seeds are hashes of the session's name
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
        },
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(**message: Any) -> Any:
        stdin.write(json.dumps(message) + "\n")
        stdin.flush()
        return json.loads(stdout.readline())

    try:
        yield ask
    finally:
        stdin.close()
        process.wait()


def run_tao(
    ask: Callable[..., Any],
    algorithm: str,
    seed: int,
    curves: Curves,
    ranges: Mapping[str, tuple[float, float]],
) -> Outcome:
    """Its recommendations, a training each, one after another, as its runner trains them.

    Args:
        ranges: in place of those that it ships.
    """
    ask(
        begin={
            "algorithm": algorithm,
            "seed": seed,
            "epochs": curves.epochs,
            "ranges": ranges,
            "defaults": DEFAULTS,
            "metric": METRIC,
        }
    )
    outcome = Outcome()
    trained, now = 0, 0.0
    queue: list[dict[str, Any]] = []
    found = ask(results=[])
    while found is not None and trained <= RANDOM_TRIALS * curves.epochs:
        queue += found
        if not queue:
            break
        one, score = queue.pop(0), 0.0
        took = curves.epoch_seconds(one["values"])
        now += START_EPOCHS * took
        for epoch in range(one["first"], min(one["epochs"], curves.epochs)):
            trained, now = trained + 1, now + took
            score = curves.score(one["values"], epoch)
            outcome.scored(score, math.inf, trained, now)
        found = ask(results=[[one["id"], score]])  # it reads the last score of a training
    outcome.all_epochs = trained
    return outcome
