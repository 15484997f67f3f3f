"""The study of a search, which is there before its first worker."""

from __future__ import annotations

from rtdetr_slurm.automl.history import TrialState
from rtdetr_slurm.automl.study import create_study, journal_of, open_study
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.records import exists
from rtdetr_slurm.submission.sending import Sending


def check_search(plan: Plan) -> None:
    """Refuse a folder that another search has begun in; writes nothing.

    Raises:
        RequestError: saying which, and what to do.
    """
    for stage in plan.stages:
        if stage.search is not None:
            _see_that_none_has_begun(stage.search)


def make_study(sending: Sending) -> None:
    """Make the study of a stage that searches and is sent for the first time; of another stage
    nothing.

    Raises:
        RequestError: another search has begun in its folder, or the algorithm cannot do what this
            one asks for.
        OSError: its journal cannot be written.
    """
    search = sending.stage.search
    if search is None or sending.why is not None:
        return
    _see_that_none_has_begun(search)
    journal_of(search).unlink(missing_ok=True)
    create_study(search)


def _see_that_none_has_begun(search: Search) -> None:
    """A study of which no trial has begun is what a submission has left that was refused."""
    if not exists(journal_of(search)):
        return
    if any(one.state is not TrialState.WAITING for one in open_study(search).trials()):
        raise RequestError(
            f"results_dir: {search.folder} holds a search already; choose another results_dir, or "
            "go on with that one (rtdetr-slurm automl extend, or resume)"
        )
