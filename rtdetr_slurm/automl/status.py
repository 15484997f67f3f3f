"""Where a search stands: its trials, what it has spent, and how long it will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from rtdetr_slurm.automl.baseline import Baseline, baseline_of
from rtdetr_slurm.automl.budget import (
    Budget,
    budget_of,
    gpu_hours,
    search_events,
    seconds_of,
    why_over,
)
from rtdetr_slurm.automl.history import TrialRecord, TrialState
from rtdetr_slurm.automl.leaderboard import Entry, leaderboard, whole_curve
from rtdetr_slurm.automl.leases import Lease, lease_of
from rtdetr_slurm.automl.study import Study
from rtdetr_slurm.plan.model import Stage, StageTask
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.best import Best, read_best
from rtdetr_slurm.runs.claim import claim_id
from rtdetr_slurm.runs.events import Event
from rtdetr_slurm.runs.live import Live, read_live
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.state import task_history
from rtdetr_slurm.runs.trials import searching_stage


@dataclass(frozen=True)
class RunningTrial:
    """A trial that has begun and not ended.

    Attributes:
        curve: deciding metric by epoch, with the epochs of what it goes on from.
        lease: who trains it; one that is not held waits for a worker to go on with it.
        live: what its rank 0 says, where it says something.
        seconds: that it has taken.
    """

    trial: TrialRecord
    curve: Mapping[int, float]
    lease: Lease | None
    live: Live | None
    seconds: float


@dataclass(frozen=True)
class SearchStatus:
    """Where a search stands.

    Attributes:
        entries: the leaderboard.
        gpu_hours: that its trials have taken.
        over: why no further trial begins; None where one may.
        chosen: the best checkpoint, once the search has ended.
        eta_s: seconds to the end of its last trial; None where nothing tells.
    """

    run: Run
    search: Search
    entries: Sequence[Entry]
    running: Sequence[RunningTrial]
    budget: Budget
    gpu_hours: float
    over: str | None
    chosen: Best | None
    baseline: Baseline | None
    eta_s: float | None

    @property
    def counts(self) -> dict[str, int]:
        """State to the number of trials in it."""
        found = Counter(entry.trial.state for entry in self.entries)
        return {state.value: found[state] for state in TrialState if found[state]}

    def to_json(self) -> dict[str, Any]:
        """As `--json` has it; epochs count from 0."""
        live = {one.trial.number: one for one in self.running}
        deadline, best = self.budget.deadline, self.chosen
        return {
            "run_id": self.run.id,
            "run_dir": str(self.run.path),
            "algorithm": self.search.algorithm,
            "objectives": {o.metric: o.direction for o in self.search.objectives},
            "budget": {
                "trials": self.budget.trials,
                "gpu_hours": self.budget.gpu_hours,
                "gpu_hours_spent": round(self.gpu_hours, 3),
                "deadline": None if deadline is None else deadline.isoformat(),
            },
            "trials": self.counts,
            "over": self.over,
            "eta_s": None if self.eta_s is None else round(self.eta_s),
            "baseline": self.baseline and {self.baseline.metric: self.baseline.value},
            "best": best and {"trial": best.trial, "epoch": best.epoch, "sha256": best.sha256},
            "leaderboard": [_entry_json(one, live.get(one.trial.number)) for one in self.entries],
        }


def _entry_json(entry: Entry, running: RunningTrial | None) -> dict[str, Any]:
    trial = entry.trial
    return {
        "rank": entry.rank,
        "trial": trial.number,
        "state": trial.state.value,
        "scores": dict(trial.scores),
        "best_epoch": trial.best_epoch,
        "epochs": trial.epochs,
        "curve": {str(epoch): value for epoch, value in trial.curve.items()},
        "values": dict(trial.values),
        "adjusted": dict(trial.adjusted),
        "continues": trial.continues and trial.continues.trial,
        "on_pareto_front": entry.on_front,
        "seconds": round(running.seconds, 1) if running else trial.facts.get("seconds"),
        "gpu_hours": trial.facts.get("gpu_hours"),
        "worker": running.lease.worker if running and running.lease else trial.facts.get("worker"),
        "failure": trial.failure and {"class": trial.failure[0], "evidence": trial.failure[1]},
        "live": None if running is None or running.live is None else running.live.to_json(),
    }


def status_of(run: Run, study: Study, now: datetime | None = None) -> SearchStatus:
    """Where the search of a run stands, from its record.

    Raises:
        RequestError: the record cannot be read.
    """
    moment = now or datetime.now(timezone.utc)
    stage, search = searching_stage(run)
    events, trials = run.events(), study.trials()
    of_search = search_events(events, stage)
    numbered = {trial.number: trial for trial in trials}
    running = [
        _running(run, stage, trial, numbered, events, moment)
        for trial in trials
        if trial.state is TrialState.RUNNING
    ]
    budget, spent = budget_of(search, of_search), gpu_hours(stage, of_search, moment)
    over = why_over(stage, of_search, moment)
    return SearchStatus(
        run=run,
        search=search,
        entries=leaderboard(search, trials),
        running=running,
        budget=budget,
        gpu_hours=spent,
        over=over,
        chosen=read_best(search),
        baseline=baseline_of(run),
        eta_s=eta_of(stage, trials, running, 0.0 if over else _room(stage, budget, spent, moment)),
    )


def _running(
    run: Run,
    stage: Stage,
    trial: TrialRecord,
    trials: Mapping[int, TrialRecord],
    events: Sequence[Event],
    now: datetime,
) -> RunningTrial:
    task = StageTask(stage, trial=trial.number)
    history, lease = task_history(events, task), lease_of(events, task)
    live = read_live(task.results_dir, claim_id(run.id, task.name))
    held = lease is not None and lease.held
    curve, seconds = whole_curve(trial, trials), seconds_of(history, now)
    return RunningTrial(trial, curve, lease, live if held else None, seconds)


# --- how long it will take -----------------------------------------------------------------
def eta_of(
    stage: Stage, trials: Sequence[TrialRecord], running: Sequence[RunningTrial], room_s: float
) -> float | None:
    """Seconds to the end of the last trial, if trials take as long as those so far; None where
    there has been none, and none tells how long it will take.

    Args:
        room_s: how long trials may still begin.
    """
    waiting = sum(trial.state is TrialState.WAITING for trial in trials)
    if not waiting and not running:
        return None
    known = [trial.facts.get("seconds") for trial in trials if trial.finished]
    lengths = [float(one) for one in known if isinstance(one, int | float)]
    if not lengths:
        lengths = [
            one.seconds + one.live.eta_s
            for one in running
            if one.live is not None and one.live.eta_s is not None
        ]
    if not lengths:
        return None
    usual = sum(lengths) / len(lengths)
    left = [max(usual - one.seconds, 0.0) for one in running]
    assert stage.array is not None
    workers = len(running) or stage.array.throttle or stage.array.size
    begun_for = min(waiting * usual / workers, room_s)
    return max(begun_for + sum(left) / workers, *left, 0.0)


def _room(stage: Stage, budget: Budget, spent: float, now: datetime) -> float:
    """For how many seconds trials may still begin, with all workers at work."""
    assert stage.array is not None
    workers = stage.array.throttle or stage.array.size
    limits = [float("inf")]
    if budget.deadline is not None:
        limits.append((budget.deadline - now).total_seconds())
    if budget.gpu_hours is not None:
        gpus = stage.resources.nodes * max(stage.resources.gpus_per_node, 1) * workers
        limits.append((budget.gpu_hours - spent) * 3600 / gpus)
    return max(min(limits), 0.0)
