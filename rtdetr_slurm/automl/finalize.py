"""The stage that finds the best trial of a search, once no worker is left, and leaves what people
want to know of all of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtdetr_slurm.automl.baseline import Baseline, baseline_of
from rtdetr_slurm.automl.budget import gpu_hours, search_events, why_over, why_stopped
from rtdetr_slurm.automl.choice import Choice, choose, kept_trials, remove_checkpoints
from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.leaderboard import Entry, leaderboard, leaderboard_csv
from rtdetr_slurm.automl.report import SearchReport, render
from rtdetr_slurm.automl.study import Study, open_study
from rtdetr_slurm.contract import REPORT_HTML, FailureClass, Kpi, Status
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.files import write_atomic
from rtdetr_slurm.installed import see_installed
from rtdetr_slurm.launch.allocation import Allocation
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.stage_run import StageRun
from rtdetr_slurm.launch.step import StopRequest
from rtdetr_slurm.launch.verdict import Kind, Verdict
from rtdetr_slurm.plan.model import StageTask
from rtdetr_slurm.plan.search import TRIALS_DIR
from rtdetr_slurm.resolved_spec import spec_text, value_at, with_values
from rtdetr_slurm.runs.artefacts import verified_checkpoints
from rtdetr_slurm.runs.best import Best, keep_best
from rtdetr_slurm.runs.checkpoints import kpi_by_epoch
from rtdetr_slurm.runs.events import RecordedCheckpoints
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.trials import searching_stage

LEADERBOARD_CSV = "leaderboard.csv"
BEST_SPEC_YAML = "best_spec.yaml"
BEST_LINK = "best"
"""In a search's folder: the link to the best trial's."""


class BestRun(StageRun):
    """One start of the stage."""

    def __init__(self, run: Run, allocation: Allocation, stop: StopRequest) -> None:
        super().__init__(run, allocation, stop)
        self.searching, self.search = searching_stage(run)
        self.best: Best | None = None

    def prepare(self) -> None:
        see_installed(self.search.python_path, "optuna")
        results = self.attempt.results
        results.make()
        results.look()
        results.take(self.run.spec)

    def work(self) -> Verdict:
        study = open_study(self.search)
        entries = leaderboard(self.search, study.trials())
        choice = choose(self.searching, self.search, entries)
        for problem in choice.passed_over:
            say(f"passed over: {problem}")
        self.best = choice.best
        self._tell(entries, choice)
        if choice.best is None:
            raise ActionError(why_none(entries, choice), _failure_class(entries))
        self._keep(choice.best)
        self._clean_up(study, entries, choice.best)
        return Verdict(Kind.SUCCESS, chosen_words(choice.best))

    def end_facts(self, verdict: Verdict) -> dict[str, Any]:
        if self.best is None or verdict.kind is not Kind.SUCCESS:
            return {}
        folder = StageTask(self.searching, trial=self.best.trial).results_dir
        return {"trial": self.best.trial, "checkpoints": _recorded(folder, self.best)}

    # --- what it leaves --------------------------------------------------------------------
    def _tell(self, entries: Sequence[Entry], choice: Choice) -> None:
        """The leaderboard and the report, also of a search that came to nothing."""
        folder = self.search.path
        baseline = baseline_of(self.run)
        write_atomic(folder / LEADERBOARD_CSV, leaderboard_csv(self.search, entries, baseline))
        facts = self._facts(entries, choice, baseline)
        report = SearchReport(f"Search of {self.run.id}", facts, self.search, entries)
        write_atomic(folder / REPORT_HTML, render(report))

    def _facts(
        self, entries: Sequence[Entry], choice: Choice, baseline: Baseline | None
    ) -> list[tuple[str, str]]:
        search, best = self.search, choice.best
        events = search_events(self.run.events(), self.searching)
        counts = Counter(entry.trial.state.value for entry in entries)
        facts = [
            ("algorithm", f"{search.algorithm}, seed {search.seed}"),
            ("goes by", ", ".join(f"{o.metric} ({o.direction})" for o in search.objectives)),
            ("trials", ", ".join(f"{number} {state}" for state, number in counts.items())),
            ("GPU hours", f"{gpu_hours(self.searching, events):.2f}"),
            ("best", "–" if best is None else chosen_words(best)),
        ]
        if baseline is not None:
            facts.append(("before any training", f"{baseline.metric} {baseline.value:.4f}"))
        if (reason := why_over(self.searching, events)) is not None:
            facts.append(("ended", reason))
        return [*facts, *(("passed over", problem) for problem in choice.passed_over)]

    def _keep(self, best: Best) -> None:
        """What others find the best trial by; best.json last: it says that all of it is there."""
        folder = self.search.path
        write_atomic(folder / BEST_SPEC_YAML, best_spec(self.run, best))
        self.note(lambda: _link(folder / BEST_LINK, Path(TRIALS_DIR, str(best.trial))))
        keep_best(self.search, best)
        self.attempt.results.status.write(
            Status.RUNNING, chosen_words(best), kpi={best.metric: best.value}
        )

    def _clean_up(self, study: Study, entries: Sequence[Entry], best: Best) -> None:
        """Remove checkpoints that are not to stay; none while the search may go on with them."""
        if self.search.retention == "all":
            return
        events = search_events(self.run.events(), self.searching)
        spent = why_stopped(events) is None and why_over(self.searching, events) is not None
        if not (spent or study.is_over()):
            say("the search may be resumed, so that the checkpoints of all its trials are left")
            return
        kept = kept_trials(self.search, entries, best)
        files, size = remove_checkpoints(self.run, self.searching, entries, kept)
        if files:
            say(
                f"removed {files} checkpoints of other trials, {size / 2**30:.2f} GiB "
                f"(automl.retention: {self.search.retention})"
            )


def chosen_words(best: Best) -> str:
    """The choice in one line."""
    return f"trial {best.trial}, epoch {best.epoch}: {best.metric} {best.value:.4f}"


def why_none(entries: Sequence[Entry], choice: Choice) -> str:
    """Why there is no best trial."""
    if choice.passed_over:
        return f"no trial has left a whole checkpoint: {choice.passed_over[0]}"
    begun = [entry.trial for entry in entries if entry.trial.state is not TrialState.WAITING]
    failures = Counter(trial.failure for trial in begun if trial.failure is not None)
    words = f"none of the {len(begun)} trials that were begun has ended with a score"
    if not failures:
        return words
    [((failure_class, evidence), count)] = failures.most_common(1)
    failed = sum(failures.values())
    return f"{words}; {failed} failed, {count} of them with {failure_class}: {evidence}"


def _failure_class(entries: Sequence[Entry]) -> FailureClass:
    """The commonest of the trials."""
    found = Counter(entry.trial.failure[0] for entry in entries if entry.trial.failure is not None)
    commonest = found.most_common(1)[0][0] if found else ""
    return next((one for one in FailureClass if one.value == commonest), FailureClass.UNKNOWN)


def best_spec(run: Run, best: Best) -> str:
    """A spec that trains once as the best trial did."""
    job = {"job.action": best.action, "job.parent": run.manifest.parent, "automl.policy": "off"}
    values = {path: value for path, value in job.items() if value is not None}
    spec = with_values(run.spec, {**best.values, **values})
    if Path(str(value_at(spec, "results_dir") or run.path)).is_relative_to(run.path):
        spec["results_dir"] = ""
    head = f"# As {chosen_words(best)} of {run.id} was trained.\n"
    return head + spec_text(spec)


def _recorded(folder: Path, best: Best) -> RecordedCheckpoints:
    """The checkpoints of the best trial, as an event has them."""
    scores = kpi_by_epoch(folder).get(Kpi.VAL_MAP, {})
    recorded: RecordedCheckpoints = {
        "best": {
            "file": best.checkpoint,
            "epoch": best.epoch,
            "metric": scores.get(best.epoch),
            "sha256": best.sha256,
        }
    }
    if (last := verified_checkpoints(folder).get("last")) is not None:
        recorded["last"] = last
    return recorded


def _link(path: Path, target: Path) -> None:
    """Make or replace a symbolic link at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(path)
