"""The data of a spec that nobody submits: all of them, every image that is here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.data.classes import find_classes
from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.data.decoding import Told
from rtdetr_slurm.data.everything import DataReport, check_everything
from rtdetr_slurm.data.findings import Findings
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import local_path, with_values
from rtdetr_slurm.site.discover import FoundSite
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.spec.paths import absolute_paths
from rtdetr_slurm.staging.progress import Tell
from rtdetr_slurm.submission.data import known_classes
from rtdetr_slurm.submission.staging import find_sources

_PROCESSES = 8
"""So many decode images at most: a login node is others', too."""
_ANNOTATED = ("train", "val", "test")


def check_data_of(
    loaded: LoadedSpec, found: FoundSite, *, bring_all: bool, tell: Tell, told: Told
) -> tuple[DataReport, list[str]]:
    """Check the data of all actions of a spec.

    Args:
        bring_all: whether what is at addresses and in archives is brought into the cache first;
            else of that only what describes data is.
        tell: of what is brought. told: of what is decoded.

    Returns:
        The report, and notes on what could not be looked at.

    Raises:
        RequestError: objects that the spec names are missing or refused.
        SiteError: a place cannot be reached from here.
        ActionError: the memory does not suffice.
    """
    frozen = absolute_paths(loaded.resolved(), Path.cwd())
    brought = find_sources(loaded, frozen, loaded.actions, found, tell, bring_all=bring_all)
    at_hand, left = with_values(frozen, brought.paths), brought.staging
    experiment = ExperimentConfig.model_validate(at_hand)
    engine_of = found.site.engine_of

    def known(action: str, before: Mapping[int, str] | None) -> Mapping[int, str] | None:
        said = known_classes(action, engine_of(action), at_hand, before or {})
        infers = "infer" in get_action(action).reads
        return said or (_categories(experiment) if infers else None)

    def ranks(action: str) -> int:
        asked = loaded.topology_of(action)
        return asked.num_nodes * asked.num_gpus

    report = check_everything(
        experiment,
        loaded.actions,
        workers=min(_PROCESSES, len(os.sched_getaffinity(0))),
        engine_of=engine_of,
        ranks_of=ranks,
        skip_bad_images=loaded.job.bad_images == "skip",
        staged_later=left is not None,
        known_of=known,
        told=told,
    )
    named = Findings(
        replace(finding, message=brought.named(finding.message)) for finding in report.findings
    )
    notes = [*brought.notes]
    if left is not None:
        fields = ", ".join(one.field for one in left.fields if one.object.kind != "file")
        notes += [f"not looked at before it is brought (--fetch): {fields}"] if fields else []
    return replace(report, findings=named, named=brought.named), notes


def _categories(experiment: ExperimentConfig) -> dict[int, str] | None:
    """The classes of the annotated sources that a spec has beside images without annotations; None
    where it has none that can be read."""
    for kind in _ANNOTATED:
        given = getattr(experiment.dataset, f"{kind}_data_sources") or []
        for source in given if isinstance(given, list) else [given]:
            if (path := local_path(source.json_file)) is None:
                continue
            try:
                return find_classes([read_annotations(path)])[0]
            except RequestError:
                continue
    return None
