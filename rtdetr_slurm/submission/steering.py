"""What one does to a search that is under way, or has ended: extend it, stop it, go on with it.

Its workers read the record before they take a trial, so that those at work are told by an event.
Those that have ended are sent again where there is something for them, and with them what finds
the best trial and all that comes after that.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from rtdetr_slurm.automl.budget import budget_of, search_events, why_over, why_stopped
from rtdetr_slurm.automl.study import open_study
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.limits import check_limits
from rtdetr_slurm.plan.model import Stage
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.runs.run import Run
from rtdetr_slurm.runs.trials import searching_stage
from rtdetr_slurm.site.discover import administrators_site
from rtdetr_slurm.submission.resume import find_missing, resume_run
from rtdetr_slurm.submission.survey import survey_run

OnNote = Callable[[str], object]


@dataclass(frozen=True)
class Extension:
    """What is added to the budget of a search.

    Attributes:
        deadline: that takes the place of the present one; None: that one stays.
    """

    trials: int = 0
    gpu_hours: float = 0.0
    deadline: datetime | None = None


def extend_search(
    run: Run, more: Extension, on_note: OnNote = lambda _: None
) -> tuple[int, Mapping[str, str]]:
    """Add to the budget of a search, and have it go on where it has ended or was stopped.

    Args:
        on_note: is told what is worth knowing.

    Returns:
        How many trials there was something to try for, and what was sent: stage name → job id.

    Raises:
        RequestError: the run searches nothing or is another user's, there is nothing to add, or
            what comes after the search is at work on what there is so far; or as resume_run.
        SiteError: the site allows no more; or as resume_run.
    """
    stage, search = _own_search(run)
    _check(search, more)
    _see_that_it_is_allowed(run, stage, search, more)
    report, _ = survey_run(run.path)
    find_missing(run, report, run.events(), reopened=[stage.name])  # before anything is added
    added = open_study(search).extend(more.trials) if more.trials else 0
    if added < more.trials:
        on_note(f"there is something to try for {added} trials more, not for {more.trials}")
    until = {} if more.deadline is None else {"deadline": more.deadline.isoformat()}
    budget = {"trials": added, "gpu_hours": more.gpu_hours, **until}
    run.record("extended", search=stage.name, **budget)
    return added, _go_on(run, stage, search, on_note)


def resume_search(run: Run, on_note: OnNote = lambda _: None) -> Mapping[str, str]:
    """Go on with a search that was stopped, or whose workers have ended before it was over, and
    with all else that is missing of the run; returns stage name → job id.

    Args:
        on_note: is told what is worth knowing.

    Raises:
        RequestError, SiteError: as extend_search.
    """
    return _go_on(run, *_own_search(run), on_note)


def stop_search(run: Run, reason: str) -> str | None:
    """Have no further trial begin; those at work are trained on, and then the best of all is found.

    Returns:
        Why none would have begun anyway; None where one might have.

    Raises:
        RequestError: the run searches nothing, or is another user's.
    """
    stage, search = _own_search(run)
    over = _why_over(run, stage, search)
    if over is None:
        run.record("stopping", search=stage.name, reason=reason)
    return over


def _own_search(run: Run) -> tuple[Stage, Search]:
    if not run.is_own:
        raise RequestError(f"{run.id} is {run.manifest.user}'s, and its search is not yours")
    return searching_stage(run)


def _check(search: Search, more: Extension) -> None:
    if more == Extension():
        raise RequestError("nothing to add: give trials, GPU hours or a deadline")
    if more.trials < 0 or more.gpu_hours < 0:
        raise RequestError("what is added to a search is more than nothing")
    if more.gpu_hours and search.gpu_hours is None:
        raise RequestError("this search has no limit of GPU hours that could be raised")
    if more.deadline is not None and more.deadline <= datetime.now(timezone.utc):
        raise RequestError(f"the deadline {more.deadline.isoformat()} has passed")


def _see_that_it_is_allowed(run: Run, stage: Stage, search: Search, more: Extension) -> None:
    """See that the budget as it becomes is within what the administrator allows now."""
    site = administrators_site(os.environ)
    if site is None or stage.launch.scheduler != "slurm":
        return
    budget = budget_of(search, search_events(run.events(), stage))
    trials, most = budget.trials + more.trials, site.limits.max_trials
    if most is not None and trials > most:
        raise SiteError(
            f"the search would have {trials} trials; at most {most}"
            f"{site.limits.place('max_trials')}"
        )
    hours = None if budget.gpu_hours is None else budget.gpu_hours + more.gpu_hours
    larger = replace(stage, search=replace(search, gpu_hours=hours))
    check_limits([larger if one is stage else one for one in run.plan.stages], site)


def _why_over(run: Run, stage: Stage, search: Search) -> str | None:
    """Why no further trial begins; None where one may."""
    over = why_over(stage, search_events(run.events(), stage))
    return "no trial is left" if over is None and open_study(search).is_over() else over


def _go_on(run: Run, stage: Stage, search: Search, on_note: OnNote) -> Mapping[str, str]:
    events = search_events(run.events(), stage)
    if (why := why_stopped(events)) is not None:
        run.record("going_on", search=stage.name)
        on_note(f"goes on, though {why}")
    over = _why_over(run, stage, search)
    if over is not None:
        on_note(f"no trial begins: {over}")
    return resume_run(run, reopened=[] if over else [stage.name], on_note=on_note)
