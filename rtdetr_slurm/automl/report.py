"""report.html of a search: its leaderboard, and Optuna's own plots of it.

One file that opens from anywhere and asks nobody for anything: the plots' program is in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.history import TrialRecord, best_trial
from rtdetr_slurm.automl.leaderboard import (
    Entry,
    short_names,
    shown_score,
    shown_value,
    whole_curve,
)
from rtdetr_slurm.automl.quiet import silence
from rtdetr_slurm.automl.sampling import distributions, parameters_of
from rtdetr_slurm.markup import Markup, element, page, text_table
from rtdetr_slurm.plan.search import Search

if TYPE_CHECKING:
    from optuna.study import Study
    from plotly.graph_objects import Figure

_FEWEST = 10
"""Trials that importances take: they compare the best tenth with the others."""
TABLE_TRIALS = 50
"""Trials in the table at most."""
POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)
"""The page may load nothing, and runs what is in it. Before Optuna 5 parallel coordinates are drawn
by code that plotly makes as it goes, which is what `eval` is for."""
_STYLE = """
.plot { margin: 1rem 0; overflow-x: auto; background: #fff; }
th:first-child, td:first-child { overflow-wrap: normal; } td { max-width: 30ch; }
.wide:first-of-type td { text-align: left; }
"""


@dataclass(frozen=True)
class SearchReport:
    """What the report of a search is made of.

    Attributes:
        facts: name and value of what was searched, and how it ended.
        entries: all trials in their order.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    search: Search
    entries: Sequence[Entry]


def render(report: SearchReport) -> bytes:
    """The whole file, UTF-8."""
    parts = [text_table((), report.facts), *_table(report), *_plots(report)]
    return page(report.title, parts, policy=POLICY, style=_STYLE)


def _table(report: SearchReport) -> Iterator[Markup]:
    search, names = report.search, short_names(report.search)
    begun = [entry for entry in report.entries if entry.trial.values or entry.trial.curve]
    yield element("h2", "Trials")
    if len(begun) > TABLE_TRIALS:
        yield element("p", f"Of {len(begun)} trials {TABLE_TRIALS} are shown, the best first.")
    metrics = [objective.metric for objective in search.objectives]
    head = ("rank", "trial", "state", *metrics, "best epoch", "epochs", *names.values(), "remarks")
    rows = []
    for entry in begun[:TABLE_TRIALS]:
        trial = entry.trial
        scores = (trial.scores.get(metric) for metric in metrics)
        rows.append(
            [
                *("–" if entry.rank is None else str(entry.rank), str(trial.number)),
                trial.state.value,
                *(shown_score(score) or "–" for score in scores),
                "–" if trial.best_epoch is None else str(trial.best_epoch + 1),
                f"{max(trial.curve, default=-1) + 1}/{trial.epochs}",
                *(shown_value(trial.values.get(field, "–")) for field in names),
                "; ".join(remarks(entry)),
            ]
        )
    yield text_table(head, rows)


def remarks(entry: Entry) -> Iterator[str]:
    """What there is to say about a trial besides numbers."""
    trial = entry.trial
    if entry.on_front:
        yield "no other is better in everything"
    if trial.continues is not None:
        yield f"goes on from trial {trial.continues.trial}, epoch {trial.continues.epoch + 1}"
    yield from (f"{field}: {reason}" for field, reason in trial.adjusted.items())
    if trial.failure is not None:
        yield ": ".join(trial.failure)


# --- Optuna's plots ------------------------------------------------------------------------
def _plots(report: SearchReport) -> Iterator[Markup]:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:  # the environment on this node is not the one of submit
        yield element("p", f"There are no plots: {error}")
        return
    yield element("script", Markup(get_plotlyjs()))
    search = report.search
    study = study_of(search, [entry.trial for entry in report.entries])
    for number, (title, words, plot) in enumerate(_wanted(search)):
        yield element("h2", title)
        yield element("p", words)
        yield _drawn(lambda plot=plot: plot(study), f"plot-{number}")  # type: ignore[misc]


def _wanted(search: Search) -> Iterator[tuple[str, str, Callable[[Study], Figure]]]:
    """Title, explanation and maker of each plot."""
    from optuna import visualization
    from optuna.importance import PedAnovaImportanceEvaluator

    decides = search.objective.metric
    several = len(search.objectives) > 1
    target: dict[str, Any] = {"target_name": decides}
    if several:
        target["target"] = lambda trial: trial.values[0]

    def importances(study: Study) -> Figure:
        if sum(trial.values is not None for trial in study.trials) < _FEWEST:
            raise ValueError(f"fewer than {_FEWEST} trials have a result")
        evaluator = PedAnovaImportanceEvaluator()
        return visualization.plot_param_importances(study, evaluator=evaluator, **target)

    if len(search.objectives) in (2, 3):
        names = [objective.metric for objective in search.objectives]
        yield (
            "Pareto front",
            "Each trial by what it is worth in every objective; in red those that no other beats "
            "in all of them.",
            lambda study: visualization.plot_pareto_front(study, target_names=names),
        )
    yield (
        "History",
        f"{decides} of each trial at its best epoch, and the best so far.",
        lambda study: visualization.plot_optimization_history(study, **target),
    )
    yield (
        "Importances",
        f"How much of the difference between good and other trials each field explains "
        f"({decides}, by PED-ANOVA).",
        importances,
    )
    yield (
        "Parallel coordinates",
        "A line for each trial. Drag along an axis to keep those within.",
        lambda study: visualization.plot_parallel_coordinate(study, **target),
    )
    yield (
        "Learning curves",
        f"{decides} by epoch, counted from 0, of each trial.",
        lambda study: visualization.plot_intermediate_values(study).update_layout(
            xaxis_title="epoch", yaxis_title=decides
        ),
    )


def _drawn(make: Callable[[], Figure], name: str) -> Markup:
    """A plot, or why there is none: a report without one is better than no report."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls half of them experimental
            figure = make()
        figure.update_layout(
            title=None, margin={"t": 30}, height=max(figure.layout.height or 0, 450)
        )
        text = figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=name,
            config={"responsive": True, "displaylogo": False},
        )
    except Exception as error:  # Optuna raises of many kinds where there is too little to plot
        return element("p", f"This plot cannot be drawn: {error}")
    return element("div", Markup(text), class_="plot")


def study_of(search: Search, trials: Sequence[TrialRecord]) -> Study:
    """The trials as Optuna's plots are to see them, each with its number.

    One that was stopped early counts with its best epoch, as one that was not; of several that
    continue each other with the same values the last counts, with the best and the epochs of all.
    """
    import optuna

    silence()
    study = optuna.create_study(directions=[one.direction for one in search.objectives])
    numbered = {trial.number: trial for trial in trials}
    chains = {one.number: [*_alike(one, numbered)] for one in trials if one.finished}
    for _, *earlier in [*chains.values()]:
        for trial in earlier:
            chains.pop(trial.number, None)
    for number in range(max(numbered, default=-1) + 1):
        best = best_trial(chains.get(number, ()), search.objective)
        if best is None or any(one.metric not in best.scores for one in search.objectives):
            made = optuna.trial.create_trial(state=optuna.trial.TrialState.FAIL)
        else:
            params, kinds = parameters_of(search, best.values), distributions(search)
            made = optuna.trial.create_trial(
                values=[best.scores[objective.metric] for objective in search.objectives],
                params=params,
                distributions={name: kinds[name] for name in params},
                intermediate_values=whole_curve(numbered[number], numbered),
            )
        study.add_trial(made)
    return study


def _alike(trial: TrialRecord, trials: Mapping[int, TrialRecord]) -> Iterator[TrialRecord]:
    """A trial, and those before that it goes on from with the same values."""
    seen: set[int] = set()
    found: TrialRecord | None = trial
    while found is not None and found.number not in seen and found.values == trial.values:
        yield found
        seen.add(found.number)
        found = None if found.continues is None else trials.get(found.continues.trial)
