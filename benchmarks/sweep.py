"""Searches over recorded learning curves, beside NVIDIA TAO's; and what many workers cost.

    python benchmarks/sweep.py curves [--seeds N] [--tao PYTHON]
    python benchmarks/sweep.py journal [--workers 64] [--trials 192]

`curves` trains nothing: a draw's scores are the weighted mean of the recorded ones nearest to it
(benchmarks/curves.py), and the clock is simulated. The target of a seed is the best score of
60 trainings to the end with draws of that seed. The first table shows the epochs and the time until
a search has reached it, the share of the workers' time in which a training ran, and what that share
would be if as many trainings as there are workers began together, and the next when all had ended.

The other tables are made with PYTHON, an interpreter that has nvidia-tao-automl and in which
benchmarks/sweep_tao.py runs: what each of TAO's algorithms finds with its own defaults, and when
ours has found as much. Its runner trains what its algorithm gives out one by one; ours has workers.
Either searches the same four fields, first as shipped: TAO with its own ranges, ours with what
`rtdetr-slurm automl space` prints for the same spec; then in the ranges of the recorded draws, of
which TAO draws on a linear scale only, and ours on the same one or, as by default, a logarithmic.

Of 56 recorded draws, `--seeds 7`: share of the epochs of 60 trainings until the best of them is
reached (median), and how many seeds reached it.

    bohb 0.27 (7)    bayesian 0.34 (6)    dehb 0.22 (5)    asha 0.13 (4)    hyperband 0.20 (4)
    hyperband_es 0.18 (4)    qmc 0.28 (4)    random: in 3

Epochs and time until ours has found what TAO's finds in the end, as parts of TAO's (8 workers; two
seeds as shipped, three in the same ranges, both on a linear scale; bayesian was not run):

                  asha         hyperband    hyperband_es  bohb         dehb         pbt
    as shipped    0.00, 0.00   0.01, 0.01   0.06, 0.04    0.01, 0.01   0.17, 0.02   0.00, 0.00
    same ranges   0.92, 0.10   3.54, 0.40   1.50, 0.47    1.58, 0.18   2.77, 0.32   1.12, 0.14

As shipped nearly all draws of TAO's diverge. In the same ranges it needs fewer epochs than ours,
but for asha, of which as of hyperband one seed of ours did not find as much at all. TAO's judge
after one epoch, ours after four; that this is the reason has not been tried.

`journal` has as many processes as workers take trials of one journal, and sleeps in place of
training.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from curves import BATCH_SIZES, FIELDS
from journal import journal_table
from simulation import (
    BATCH,
    LINEAR_SPACE,
    OWN_SPACE,
    RANDOM_TRIALS,
    SPACE,
    Curves,
    Outcome,
    full_trainings,
    run_ours,
    run_tao,
    search_of,
    tao_search,
)

from rtdetr_slurm.plan.search import Parameter

HERE = Path(__file__).resolve().parent
OURS: dict[str, tuple[int, dict[str, Any]]] = {
    "random": (60, {}),
    "qmc": (60, {}),
    "bayesian": (60, {}),
    "asha": (120, {}),
    "hyperband": (90, {}),
    "hyperband_es": (90, {}),
    "bohb": (90, {}),
    "dehb": (90, {}),
    "pbt": (60, {"interval": 9}),
}
"""Trials, and further fields, by algorithm."""
TAOS = ("asha", "hyperband", "hyperband_es", "bohb", "dehb", "pbt", "bayesian")


def curves_tables(table: Path, seeds: int, workers: int, tao: str | None, tao_seeds: int) -> None:
    curves = Curves(table)
    whole = RANDOM_TRIALS * curves.epochs
    bests = [[max(curves.curve(draw)) for draw in full_trainings(seed)] for seed in range(seeds)]
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
        found = [
            run_ours(
                search_of(name, seed, curves.epochs, trials, **fields),
                curves,
                workers,
                targets[seed],
            )
            for seed in range(seeds)
        ]
        row(name, found, targets, whole, workers)
    if tao is not None:
        with tao_search(tao) as ask:
            given = {**FIELDS, BATCH: (min(BATCH_SIZES), max(BATCH_SIZES))}
            beside_tao("as shipped", ask, curves, tao_seeds, workers, {}, OWN_SPACE)
            beside_tao("same ranges", ask, curves, tao_seeds, workers, given, LINEAR_SPACE)
            beside_tao("ours logarithmic", ask, curves, tao_seeds, workers, given, SPACE)


def beside_tao(
    title: str,
    ask: Callable[..., Any],
    curves: Curves,
    seeds: int,
    workers: int,
    ranges: Mapping[str, tuple[float, float]],
    space: tuple[Parameter, ...],
) -> None:
    """What each of TAO's algorithms has found in the end, when it had found it, and when ours had
    found as much: medians, and those of the seeds' ratios."""
    print(
        f"\n{title:16}{'TAO: best':>10}{'epochs':>8}{'time':>8}{'ours: reached':>15}{'epochs':>8}"
        f"{'time':>8}{'ratios':>9}{'':>7}"
    )
    median = statistics.median
    for name in TAOS:
        theirs = [run_tao(ask, name, seed, curves, ranges) for seed in range(seeds)]
        trials, fields = OURS[name]
        ours = [
            run_ours(
                search_of(name, seed, curves.epochs, trials, space, **fields),
                curves,
                workers,
                theirs[seed].best,
                whole=False,
            )
            for seed in range(seeds)
        ]
        pairs = [*zip(ours, theirs, strict=True)]
        print(
            f"{name:16}{median(one.best for one in theirs):>10.3f}"
            f"{median(one.best_epochs for one in theirs):>8.0f}"
            f"{median(one.best_seconds for one in theirs):>7.0f}s"
            f"{sum(one.epochs is not None for one in ours):>12}/{seeds:<2}"
            f"{median(one.epochs or math.inf for one in ours):>8.0f}"
            f"{median(one.seconds or math.inf for one in ours):>7.0f}s"
            f"{median((a.epochs or math.inf) / b.best_epochs for a, b in pairs):>9.2f}"
            f"{median((a.seconds or math.inf) / b.best_seconds for a, b in pairs):>7.2f}",
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    curves = commands.add_parser("curves")
    curves.add_argument("--table", type=Path, default=HERE / "curves.csv")
    curves.add_argument("--seeds", type=int, default=11)
    curves.add_argument("--workers", type=int, default=8)
    curves.add_argument("--tao", metavar="PYTHON")
    curves.add_argument("--tao-seeds", type=int, default=7)
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
