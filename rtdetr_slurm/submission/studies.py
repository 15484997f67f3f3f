"""The study of a search, which is there before its first worker."""

from __future__ import annotations

from rtdetr_slurm.automl.study import create_study, journal_of
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.model import Plan, Stage
from rtdetr_slurm.records import exists


def check_search(plan: Plan) -> None:
    """Refuse a folder that another search has begun in; writes nothing.

    Raises:
        RequestError: saying which, and what to do.
    """
    for stage in plan.stages:
        if stage.search is not None and exists(journal_of(stage.search)):
            raise RequestError(
                f"results_dir: {stage.search.folder} holds a search already; choose another "
                "results_dir, or go on with that one (rtdetr-slurm automl extend, or resume)"
            )


def make_study(stage: Stage) -> None:
    """Make the study of a stage that searches, unless this run has one from an earlier submission;
    of another stage nothing.

    Raises:
        RequestError: the algorithm cannot do what the search asks for.
        OSError: its journal cannot be written.
    """
    if stage.search is not None and not exists(journal_of(stage.search)):
        create_study(stage.search)
