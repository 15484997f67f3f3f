"""The search that a submission is, with what it brings along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.automl.policy import Asked, asked_of, with_evaluation
from rtdetr_slurm.plan.chain import STARTED_FROM
from rtdetr_slurm.plan.search import BASELINE
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.spec import LoadedSpec
from rtdetr_slurm.submission.weights import weights_can_be_scored

if TYPE_CHECKING:
    from rtdetr_slurm.site.profile import Site


def find_search(
    loaded: LoadedSpec, spec: Mapping[str, Any], site: Site
) -> tuple[LoadedSpec, Asked]:
    """What training is to be, and the spec with what is needed for that.

    Args:
        spec: frozen, of `loaded`.

    Raises:
        RequestError: it is to be a search that cannot be.
        SiteError: the site's limits do not allow it.
    """
    asked = asked_of(loaded, spec, site)
    if asked.searching is None or not asked.searching.evaluates:
        return loaded, asked
    completed, note = with_evaluation(loaded, site)
    has_baseline, why_not = _baseline(loaded, spec)
    notes = [*asked.notes, note, *([f"{BASELINE}: left out: {why_not}"] if why_not else [])]
    searching = replace(asked.searching, has_baseline=has_baseline)
    return completed, replace(asked, searching=searching, notes=tuple(notes))


def _baseline(loaded: LoadedSpec, spec: Mapping[str, Any]) -> tuple[bool, str | None]:
    """Whether what training starts from can be scored as it is; where it starts from something that
    cannot, also why."""
    named = next((value for name in STARTED_FROM if (value := value_at(spec, name))), None)
    if named is None:
        return loaded.job.parent is not None and loaded.action == "train", None
    path = local_path(named)
    problem = None if path is None else weights_can_be_scored(loaded.experiment, path)
    return problem is None, problem
