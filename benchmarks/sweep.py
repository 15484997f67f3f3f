"""Searches over recorded learning curves, beside NVIDIA TAO's; and what many workers cost.

    python benchmarks/sweep.py curves [--seeds N] [--tao PYTHON]
    python benchmarks/sweep.py journal [--workers 64] [--trials 192]

`curves` trains nothing: a draw's scores and seconds are those of the recorded draw that is nearest
to it (benchmarks/curves.py), and the clock is simulated. The target of a seed is the best score of
60 trainings to the end with draws of that seed. The first table shows the epochs and the time until
a search has reached it, the share of the workers' time in which a training ran, and what that share
would be if as many trainings as there are workers began together, and the next when all had ended.

The second table is made with PYTHON, an interpreter that has nvidia-tao-automl and in which
benchmarks/sweep_tao.py runs: what each of TAO's algorithms finds, and when ours has found as much.
Its runner trains what its algorithm gives out one by one; the table also shows what it would take
if what is given out together ran together.

`journal` has as many processes as workers take trials of one journal, and sleeps in place of
training.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import itertools
import json
import math
import multiprocessing
import os
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curves import BATCH_SIZES, FIELDS
from optuna.storages import InMemoryStorage

from rtdetr_slurm.automl.study import Assignment, create_study, open_study
from rtdetr_slurm.plan.search import Objective, Parameter, Search

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
RANDOM_TRIALS = 60
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
        self._nearest: dict[tuple[float, ...], int] = {}

    def nearest(self, values: Mapping[str, Any]) -> int:
        at = _place(values)
        if at not in self._nearest:
            distances = [math.dist(at, place) for place in self._places]
            self._nearest[at] = distances.index(min(distances))
        return self._nearest[at]

    def rank_correlation(self, epochs: int) -> float:
        """Of what is best after so many epochs with what is in the end."""
        from scipy.stats import spearmanr

        early = [max(scores[:epochs]) for scores in self.scores]
        return float(spearmanr(early, list(map(max, self.scores))).statistic)

    def score(self, values: Mapping[str, Any], epoch: int) -> float:
        return self.scores[self.nearest(values)][epoch]

    def epoch_seconds(self, values: Mapping[str, Any]) -> float:
        return self._seconds[self.draws[self.nearest(values)][BATCH]]


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


def search_of(algorithm: Any, seed: int, epochs: int, trials: int, **fields: Any) -> Search:
    objectives = (Objective(METRIC, "maximize"),)
    return Search("/nowhere", algorithm, seed, SPACE, objectives, trials, epochs, **fields)


def run_ours(search: Search, curves: Curves, workers: int, target: float) -> Outcome:
    """Until the study is over."""
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
        if search.algorithm != "pbt":  # a worker that finds nothing ends, and frees its GPUs
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
def tao_search(python: str, algorithm: str, seed: int, epochs: int) -> Iterator[Callable[..., Any]]:
    """What asks TAO's search: `ask()` → recommendations, None at its end; `ask(results=...)` tells
    scores by recommendation first."""
    with tempfile.TemporaryDirectory() as workspace:
        process = subprocess.Popen(
            [python, str(HERE / "sweep_tao.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONHASHSEED": str(seed + 1),  # its seeds are hashes
                "PYTHONWARNINGS": "ignore",
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
            ask(
                workspace=workspace,
                algorithm=algorithm,
                seed=seed,
                epochs=epochs,
                ranges=FIELDS,
                batch=[BATCH, min(BATCH_SIZES), max(BATCH_SIZES)],
                defaults=DEFAULTS,
                metric=METRIC,
                trials=20,  # as many as its quick start has
            )
            yield ask
        finally:
            stdin.close()
            process.wait()


def run_tao(
    python: str, algorithm: str, seed: int, curves: Curves, workers: int, target: float
) -> Outcome:
    """Its recommendations, a training each, `workers` at a time; what it gives out next, it gives
    out when all of those have ended, unless it does so before."""
    outcome = Outcome()
    trained, now = 0, 0.0
    running: list[tuple[float, int, float]] = []
    queue: list[dict[str, Any]] = []
    with tao_search(python, algorithm, seed, curves.epochs) as ask:
        found = ask(results=[])
        while found is not None and trained <= RANDOM_TRIALS * curves.epochs:
            queue += found
            while queue and len(running) < workers:
                one = queue.pop(0)
                took = curves.epoch_seconds(one["values"])
                score, end = 0.0, now + START_EPOCHS * took
                for epoch in range(one["first"], min(one["epochs"], curves.epochs)):
                    trained, end = trained + 1, end + took
                    score = curves.score(one["values"], epoch)
                    outcome.scored(score, target, trained, end)
                outcome.steps.append(end - now)
                heapq.heappush(running, (end, one["id"], score))
            if not running:
                break
            now, number, score = heapq.heappop(running)
            found = ask(results=[[number, score]])  # it reads the last score of a training
    outcome.held = workers * max([now, *(end for end, _, _ in running)])
    outcome.all_epochs = trained
    return outcome


# --- tables ----------------------------------------------------------------------------------
OURS: dict[str, tuple[int, dict[str, Any]]] = {
    "random": (60, {}),
    "qmc": (60, {}),
    "bayesian": (60, {}),
    "asha": (150, {"min_epochs": 3}),
    "asha, from 9": (90, {"min_epochs": 9}),
    "hyperband": (90, {"min_epochs": 3}),
    "hyperband_es": (90, {"min_epochs": 3}),
    "bohb": (90, {"min_epochs": 3}),
    "bohb, from 9": (80, {"min_epochs": 9}),
    "dehb": (90, {"min_epochs": 3}),
    "pbt": (60, {"interval": 9}),
}
"""Trials, and further fields, by what is shown."""
TAOS = ("asha", "hyperband", "hyperband_es", "bohb", "dehb", "pbt", "bayesian")


def curves_tables(table: Path, seeds: int, workers: int, tao: str | None, tao_seeds: int) -> None:
    curves = Curves(table)
    whole = RANDOM_TRIALS * curves.epochs
    bests = [
        [max(curves.scores[curves.nearest(draw)]) for draw in full_trainings(seed)]
        for seed in range(seeds)
    ]
    targets = [max(best) for best in bests]
    print(f"{len(curves.draws)} recorded trainings of {curves.epochs} epochs; {seeds} seeds")
    for epochs in (1, 3, 9, 18):
        print(
            f"rank correlation of the best after {epochs} epochs with that of all: "
            f"{curves.rank_correlation(epochs):.2f}"
        )
    print(
        f"target: {statistics.median(targets):.3f} (median), best of {RANDOM_TRIALS} trainings, "
        f"{whole} epochs; found in the middle of them: {whole // 2}"
    )
    print(
        f"\n{'':20}{'reached':>8}{'epochs':>8}{'of all':>8}{'time':>9}{'busy':>7}{'batches':>9}"
        f"{'all':>7}{'gap':>8}"
    )
    for name, (trials, fields) in OURS.items():
        algorithm = name.partition(",")[0]
        found = [
            run_ours(
                search_of(algorithm, seed, curves.epochs, trials, **fields),
                curves,
                workers,
                targets[seed],
            )
            for seed in range(seeds)
        ]
        row(name, found, targets, whole, workers)
    if tao is not None:
        beside_tao(tao, curves, tao_seeds, workers)


def beside_tao(python: str, curves: Curves, seeds: int, workers: int) -> None:
    """What each of TAO's algorithms has found in the end, when it had found it, and when ours had
    found as much."""
    print(
        f"\n{'TAO':14}{'best':>7}{'epochs':>8}{'one by one':>12}{'together':>10}"
        f"{'ours: reached':>15}{'epochs':>8}{'time':>9}"
    )
    median = statistics.median
    for name in TAOS:
        alone = [run_tao(python, name, seed, curves, 1, math.inf) for seed in range(seeds)]
        together = (
            [run_tao(python, name, seed, curves, workers, math.inf) for seed in range(seeds)]
            if name != "bayesian"
            else alone
        )  # it gives out one at a time
        trials, fields = OURS[name]
        ours = [
            run_ours(
                search_of(name, seed, curves.epochs, trials, **fields),
                curves,
                workers,
                max(alone[seed].best, together[seed].best),
            )
            for seed in range(seeds)
        ]
        reached = [one for one in ours if one.epochs is not None]
        print(
            f"{name:14}{median(one.best for one in together):>7.3f}"
            f"{median(one.best_epochs for one in together):>8.0f}"
            f"{median(one.best_seconds for one in alone):>11.0f}s"
            f"{median(one.best_seconds for one in together):>9.0f}s"
            f"{len(reached):>12}/{seeds:<2}"
            f"{median(one.epochs or math.inf for one in ours):>8.0f}"
            f"{median(one.seconds or math.inf for one in ours):>8.0f}s",
            flush=True,
        )


def row(
    name: str, found: Sequence[Outcome], targets: Sequence[float], whole: int, workers: int
) -> None:
    """Medians; a search that never reached the target took forever."""
    median = statistics.median
    epochs = median(math.inf if one.epochs is None else one.epochs for one in found)
    seconds = median(math.inf if one.seconds is None else one.seconds for one in found)
    reached = sum(one.epochs is not None for one in found)
    gap = median(target - one.best for target, one in zip(targets, found, strict=False))
    print(
        f"{name:20}{reached:>5}/{len(found):<2}{epochs:>8.0f}{epochs / whole:>8.2f}{seconds:>8.0f}s"
        f"{median(one.busy for one in found):>7.0%}"
        f"{median(one.busy_in_batches(workers) for one in found):>9.0%}"
        f"{median(one.all_epochs for one in found):>7.0f}{gap:>8.3f}",
        flush=True,
    )


# --- many workers ----------------------------------------------------------------------------
def work(search: Search, index: int, epoch_seconds: float, told: Any) -> None:
    """A worker: trials whose epochs are slept through; tells what the study has cost each."""
    time.sleep(random.Random(index).uniform(0, 30))
    began = time.perf_counter()
    study = open_study(search)
    opened = time.perf_counter() - began
    while True:
        began = time.perf_counter()
        taken = study.take()
        if taken is None:
            break
        spent = time.perf_counter() - began
        for epoch in range(taken.epochs):
            time.sleep(epoch_seconds)
            began = time.perf_counter()
            study.report(taken.number, epoch, {METRIC: random.random()})
            spent += time.perf_counter() - began
        began = time.perf_counter()
        study.complete(taken.number, {"worker": index})
        spent += time.perf_counter() - began
        told.put((taken.number, opened, spent))


def journal_table(workers: int, trials: int, epochs: int, epoch_seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        search = Search(
            folder, "bayesian", 1, SPACE, (Objective(METRIC, "maximize"),), trials, epochs
        )
        study = create_study(search)
        context = multiprocessing.get_context("fork")  # Optuna is loaded once for all
        told = context.Queue()
        began = time.perf_counter()
        processes = [
            context.Process(target=work, args=(search, index, epoch_seconds, told))
            for index in range(workers)
        ]
        for process in processes:
            process.start()
        found = [told.get() for _ in range(trials)]
        for process in processes:
            process.join()
        records = study.trials()
        complete = sum(record.state == "complete" for record in records)
        spent = sorted(cost for _, _, cost in found)
        size = (Path(folder) / "journal.log").stat().st_size
        print(f"{workers} workers, {trials} trials of {epochs} epochs of {epoch_seconds} s")
        print(f"complete {complete}, run twice {trials - len({number for number, _, _ in found})}")
        print(
            f"seconds of a trial spent on the study: median {statistics.median(spent):.2f}, "
            f"95 % {spent[int(0.95 * len(spent))]:.2f}, most {spent[-1]:.2f}; "
            f"to open it: {statistics.median(opened for _, opened, _ in found):.2f}"
        )
        print(f"{time.perf_counter() - began:.0f} s in all; the journal has {size / 1024:.0f} KiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    curves = commands.add_parser("curves")
    curves.add_argument("--table", type=Path, default=HERE / "curves.csv")
    curves.add_argument("--seeds", type=int, default=11)
    curves.add_argument("--workers", type=int, default=8)
    curves.add_argument("--tao", metavar="PYTHON")
    curves.add_argument("--tao-seeds", type=int, default=3)
    journal = commands.add_parser("journal")
    journal.add_argument("--workers", type=int, default=64)
    journal.add_argument("--trials", type=int, default=192)
    journal.add_argument("--epochs", type=int, default=5)
    journal.add_argument("--epoch-seconds", type=float, default=6.0)
    args = parser.parse_args()
    if args.command == "curves":
        curves_tables(args.table, args.seeds, args.workers, args.tao, args.tao_seeds)
    else:
        journal_table(args.workers, args.trials, args.epochs, args.epoch_seconds)


if __name__ == "__main__":
    main()
