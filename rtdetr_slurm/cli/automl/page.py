"""How a search is shown on a terminal. Pure: status → text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.leaderboard import Entry, short_names, shown_score, shown_value
from rtdetr_slurm.automl.status import RunningTrial, SearchStatus
from rtdetr_slurm.cli.page import COLOURS as OF_STAGES
from rtdetr_slurm.cli.page import shown_live, shown_time
from rtdetr_slurm.cli.table import table
from rtdetr_slurm.cli.terminal import shown
from rtdetr_slurm.plan.search import BASELINE, BEST, EVALUATE_BEST
from rtdetr_slurm.runs.state import StageState
from rtdetr_slurm.runs.summary import RunReport

MOST_ROWS = 30
"""Trials in the table at most."""
COLOURS = {
    TrialState.COMPLETE: OF_STAGES[StageState.SUCCESS],
    TrialState.RUNNING: OF_STAGES[StageState.RUNNING],
    TrialState.FAILED: OF_STAGES[StageState.FAILED],
    TrialState.PRUNED: OF_STAGES[StageState.SKIPPED],
    TrialState.WAITING: OF_STAGES[StageState.QUEUED],
}
_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 24


def search_page(status: SearchStatus, report: RunReport) -> Text:
    """What is known of a search: facts, what is trained now, and the leaderboard."""
    facts = [*_facts(status, report)]
    text = Text("".join(f"{name:<10} {shown(value)}\n" for name, value in facts))
    running = [*_running_lines(status)]
    if running:
        text.append("\n").append("\n".join(running)).append("\n")
    text.no_wrap = True
    text.append("\n").append_text(_table(status))
    for line in _failures(status):
        text.append(f"{shown(line)}\n")
    return text


def _facts(status: SearchStatus, report: RunReport) -> Iterator[tuple[str, str]]:
    search, budget = status.search, status.budget
    yield "run", f"{status.run.id} {report.state.value}"
    goes_by = ", ".join(f"{one.metric} ({one.direction})" for one in search.objectives)
    yield "search", f"{search.algorithm}, goes by {goes_by}"
    counts = ", ".join(f"{number} {state}" for state, number in status.counts.items())
    yield "trials", f"{counts} (budget {budget.trials})"
    yield "workers", _workers(report)
    limit = "" if budget.gpu_hours is None else f" of {budget.gpu_hours:g}"
    yield "GPU hours", f"{status.gpu_hours:.2f}{limit}"
    if budget.deadline is not None:
        yield "deadline", f"{budget.deadline.astimezone():%Y-%m-%d %H:%M %z}"
    if status.eta_s is not None and not report.ended:
        yield "ETA", shown_time(status.eta_s)
    if status.over is not None:
        yield "over", status.over
    if status.baseline is not None:
        yield "baseline", f"{status.baseline.metric} {status.baseline.value:.4f}"
    if (best := status.chosen) is not None:
        yield "best", f"trial {best.trial}, epoch {best.epoch + 1}: {best.metric} {best.value:.4f}"
    for stage in report.stages:
        if stage.name in (BEST, EVALUATE_BEST, BASELINE) and stage.failure is not None:
            yield stage.name, f"{stage.state.value}: {stage.failure.evidence}"
        elif stage.name == EVALUATE_BEST and stage.progress.shown_metrics:
            told = ", ".join(f"{name} {value:.4f}" for name, value in stage.progress.shown_metrics)
            yield "evaluated", told


def _workers(report: RunReport) -> str:
    """How many of the tasks that train are in which state."""
    others = (BEST, EVALUATE_BEST, BASELINE)
    first = next(stage for stage in report.stages if stage.name not in others)
    prefix = first.name.partition(".")[0] + "."
    states = [stage.state.value for stage in report.stages if stage.name.startswith(prefix)]
    return ", ".join(f"{number} {state}" for state, number in Counter(states).items())


# --- what is trained now -------------------------------------------------------------------
def _running_lines(status: SearchStatus) -> Iterator[str]:
    values = [value for one in status.entries for value in one.trial.curve.values()]
    for one in status.running:
        yield shown(_running_line(one, values))


def _running_line(one: RunningTrial, values: Sequence[float]) -> str:
    """`trial 7, worker 2  ▁▃▅▆ 0.3120  epoch 4/12, stepping, step 7/50`."""
    who = "waits for a worker"
    if one.lease is not None and one.lease.held:
        who = "trained" if one.lease.worker is None else f"worker {one.lease.worker}"
    parts = [f"trial {one.trial.number}, {who}"]
    if one.curve:
        parts.append(f"{sparkline(one.curve, values)} {one.curve[max(one.curve)]:.4f}")
    told = [f"epoch {max(one.curve, default=-1) + 1}/{one.trial.epochs}"]
    told += [shown_live(one.live)] if one.live is not None else []
    return "  ".join([*parts, ", ".join([*told, shown_time(one.seconds)])])


def sparkline(curve: Mapping[int, float], values: Sequence[float]) -> str:
    """The latest epochs of a curve as bars.

    Args:
        values: of all curves, so that their bars compare; at least those of this one.
    """
    low, high = min(values), max(values)
    latest = [curve[epoch] for epoch in sorted(curve)][-_CURVE_WIDTH:]
    span = (high - low) or 1.0
    return "".join(_BARS[round((value - low) / span * (len(_BARS) - 1))] for value in latest)


# --- the leaderboard -----------------------------------------------------------------------
def _table(status: SearchStatus) -> Text:
    search, names = status.search, short_names(status.search)
    metrics = [objective.metric for objective in search.objectives]
    begun = [one for one in status.entries if one.trial.state is not TrialState.WAITING]
    head = ("RANK", "TRIAL", "STATE", *metrics, "BEST", "EPOCHS", "TIME", "", *names.values())
    rows = [_row(one, metrics, [*names]) for one in begun[:MOST_ROWS]]
    styles = [COLOURS[one.trial.state] for one in begun[:MOST_ROWS]]
    text = table(head, rows, styles, coloured="STATE")
    if len(begun) > MOST_ROWS:
        text.append(f"… and {len(begun) - MOST_ROWS} more: leaderboard.csv or --json has all\n")
    return text


def _row(entry: Entry, metrics: Sequence[str], fields: Sequence[str]) -> list[str]:
    trial = entry.trial
    seconds = trial.facts.get("seconds")
    scores = [trial.scores.get(metric) for metric in metrics]
    remark = "front" if entry.on_front else ""
    if trial.continues is not None:
        remark = f"from {trial.continues.trial}"
    return [
        "" if entry.rank is None else str(entry.rank),
        str(trial.number),
        trial.state.value,
        *map(shown_score, scores),
        "" if trial.best_epoch is None else str(trial.best_epoch + 1),
        f"{max(trial.curve, default=-1) + 1}/{trial.epochs}",
        shown_time(seconds) if isinstance(seconds, int | float) else "",
        remark,
        *(shown_value(trial.values[field]) if field in trial.values else "" for field in fields),
    ]


def _failures(status: SearchStatus) -> Iterator[str]:
    for entry in status.entries:
        if entry.trial.failure is not None:
            yield f"trial {entry.trial.number}: {': '.join(entry.trial.failure)}"


def trial_lines(status: SearchStatus) -> dict[int, str]:
    """A line for each trial that has begun, which changes with what there is to say of it."""
    metric, lines = status.search.objective.metric, {}
    for entry in status.entries:
        trial = entry.trial
        if trial.state is TrialState.WAITING:
            continue
        done = f"epoch {max(trial.curve, default=-1) + 1}/{trial.epochs}"
        score = f", {metric} {trial.scores[metric]:.4f}" if metric in trial.scores else ""
        why = f", {': '.join(trial.failure)}" if trial.failure is not None else ""
        lines[trial.number] = f"trial {trial.number}: {trial.state.value}, {done}{score}{why}"
    return dict(sorted(lines.items()))
