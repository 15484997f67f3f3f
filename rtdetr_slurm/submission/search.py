"""The search that a submission is, with what it brings along."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.adjust import BATCH_SIZE, adjusted
from rtdetr_slurm.automl.describe import range_text
from rtdetr_slurm.automl.policy import Asked, asked_of, may_search, with_evaluation
from rtdetr_slurm.automl.ranges import up_to
from rtdetr_slurm.automl.study import first_draws, journal_of
from rtdetr_slurm.contract import Infer
from rtdetr_slurm.errors import RequestError, SiteError
from rtdetr_slurm.plan.chain import STARTED_FROM
from rtdetr_slurm.plan.model import Array, Plan
from rtdetr_slurm.plan.search import BASELINE, Search
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.runs.run import find_run, open_run
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.slurm.commands import Slurm
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.spec.fields import walk
from rtdetr_slurm.weights import weights_can_be_scored

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site


@dataclass(frozen=True)
class Searched:
    """What training is to be.

    Attributes:
        asked: with the search, where it is one.
        loaded: the spec, with what the best trial is scored on.
    """

    asked: Asked
    loaded: LoadedSpec


def find_search(loaded: LoadedSpec, spec: Mapping[str, Any], found: FoundSite) -> Searched:
    """What training is to be; looks at what earlier searches have left, and writes nothing.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        RequestError: it is to be a search that cannot be.
        SiteError: the site does not allow it.
    """
    site = found.site
    known = _journals(loaded, found) if may_search(loaded) else ()
    asked = asked_of(loaded, spec, site, known)
    searching = asked.searching
    if searching is None:
        return Searched(asked, loaded)
    _see_that_there_is_time(searching.search)
    _see_that_slurm_takes(searching.workers, site)
    if not searching.evaluates:
        return Searched(asked, loaded)
    completed, note = with_evaluation(loaded, site)
    has_baseline, why_not = _baseline(loaded, spec)
    notes = [*asked.notes, note, *([f"{BASELINE}: left out: {why_not}"] if why_not else [])]
    searching = replace(searching, has_baseline=has_baseline)
    return Searched(replace(asked, searching=searching, notes=tuple(notes)), completed)


def fitted(plan: Plan, loaded: LoadedSpec, images: int | None) -> Plan:
    """The plan with no batch in its search that is larger than the data, as far as that is known.

    Args:
        images: that are trained on.

    Raises:
        RequestError: the spec itself asks for such batches.
    """
    stage = plan.searching
    if stage is None or stage.search is None or images is None:
        return plan
    sizes = next((one for one in stage.search.space if one.field == BATCH_SIZE), None)
    ranks = stage.resources.nodes * stage.resources.gpus_per_node
    most = images // ranks
    if sizes is None or max((*sizes.choices, sizes.high or 0)) <= most:
        return plan
    said = f"{images} training images are {most} for each of {ranks} GPUs"
    if BATCH_SIZE in loaded.automl.ranges:
        raise RequestError(
            f"automl.ranges.{BATCH_SIZE}: found {range_text(sizes)}; allowed: ≤ {most}, as {said}"
        )
    space = [one for one in stage.search.space if one is not sizes]
    if (fewer := up_to(sizes, most)) is not None:
        space.insert(stage.search.space.index(sizes), fewer)
    note = f"AutoML: {BATCH_SIZE} is searched up to {most}, as {said}"
    changed = replace(stage, search=replace(stage.search, space=tuple(space)))
    stages = tuple(changed if one is stage else one for one in plan.stages)
    return replace(plan, stages=stages, notes=(*plan.notes, note))


def draws_of(plan: Plan) -> Sequence[Mapping[str, Any] | None]:
    """Of the trials of a plan's search, in order; None for one that is drawn when it begins.

    Raises:
        RequestError: its algorithm cannot do it.
    """
    stage = plan.searching
    if stage is None or stage.search is None:
        return ()
    drawn = first_draws(stage.search, stage.search.trials)
    return [one and adjusted(stage.search, one, ())[0] for one in drawn]


def _see_that_there_is_time(search: Search) -> None:
    deadline = search.deadline
    if deadline is not None and datetime.fromisoformat(deadline) <= datetime.now(timezone.utc):
        raise RequestError(
            f"automl.deadline: found {deadline}, which has passed; allowed: a later one, or null"
        )


def _see_that_slurm_takes(workers: Array, site: Site) -> None:
    most = Slurm(os.environ).max_array_size() if site.scheduler == "slurm" else None
    if most is not None and workers.size > most:
        raise SiteError(
            f"automl.parallel: found {workers.size}; Slurm takes arrays of at most {most} tasks "
            "here (MaxArraySize)"
        )


def _journals(loaded: LoadedSpec, found: FoundSite) -> tuple[str, ...]:
    """The journals of the searches of automl.warm_start.

    Raises:
        RequestError: a run is not there, or has none.
    """
    journals = []
    for index, reference in enumerate(loaded.automl.warm_start):
        try:
            run = open_run(find_run(reference, lambda: found.run_root))
            stage = run.plan.searching
            if stage is None or stage.search is None:
                raise RequestError(f"run {run.id} has no search")
        except RequestError as error:
            raise RequestError(f"automl.warm_start[{index}]: {error}") from error
        journals.append(str(journal_of(stage.search)))
    return tuple(journals)


def _baseline(loaded: LoadedSpec, spec: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether what training starts from can be scored as it is; where it starts from something that
    cannot, also why."""
    named = next((value for name in STARTED_FROM if (value := value_at(spec, name))), None)
    if named is None:
        return loaded.job.parent is not None and _goes_on_from_parent(loaded.action), None
    path = local_path(named)
    problem = None if path is None else weights_can_be_scored(loaded.experiment, path)
    return problem is None, problem


def _goes_on_from_parent(action: str) -> bool:
    """Whether what a parent leaves is what an action trains further, and not its teacher."""
    return any(ref.inferred(action) == Infer.RESUME_MODEL for ref in walk(ExperimentConfig))
