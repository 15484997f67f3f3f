"""The data of a submission: what the engine would find, found on the login node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import EngineName, get_action
from rtdetr_slurm.data.check import Checks, inspect_sources
from rtdetr_slurm.data.check_images import spread
from rtdetr_slurm.data.classes import class_changes, find_classes
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.data.findings import Findings
from rtdetr_slurm.plan.model import Container, Stage
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.weights import classes_of


@dataclass(frozen=True)
class SubmittedData:
    """What the data are like.

    Attributes:
        classes: id to name, of what is trained; else of what was trained before.
        images: that are trained on; None where nothing is trained, or not all are known yet.
    """

    notes: tuple[str, ...]
    classes: Mapping[int, str]
    images: int | None = None


def check_data(
    loaded: LoadedSpec,
    frozen: Mapping[str, Any],
    stages: Sequence[Stage],
    trained: Mapping[int, str],
) -> SubmittedData:
    """Check the data of every stage, at the paths that the frozen spec names, as far as they are
    there before a stage brings the rest.

    Args:
        trained: classes of the run that is continued, id to name; empty where they are not known.

    Raises:
        BadData: (a RequestError) all that is wrong, with sources and spec fields, and what would be
            right.
        ActionError: the memory does not suffice for the annotations.
    """
    experiment = ExperimentConfig.model_validate(frozen)
    read = cache(read_annotations)
    staged_later = any(stage.staging is not None for stage in stages)
    found = Findings()
    notes: list[str] = []
    classes, images = trained, None
    for stage in stages:
        if not stage.runs_action:
            continue
        trains = get_action(stage.action).trains
        known = known_classes(stage.action, stage.launch.engine, frozen, classes)
        checks = Checks(
            engine=stage.launch.engine,
            skip_bad_images=trains and loaded.job.bad_images == "skip",
            ranks=stage.resources.nodes * stage.resources.gpus_per_node,
            known=known,
            staged_later=staged_later,
            read=read,
        )
        sources = inspect_sources(experiment, stage.action, found, checks)
        every = [source for group in sources.values() for source in group]
        named, _ = find_classes([source.annotations for source in every])
        notes += [
            f"{change} in the data of {stage.name}; if these are different things, its results "
            "mean nothing"
            for change in class_changes(known or {}, named)
        ]
        if trains:
            classes = named
            whole = len(sources["train"]) == len(experiment.dataset.train_data_sources or [])
            counts = [source.annotations.num_images for source in sources["train"]]
            images = sum(counts) if whole else None
        if stage.container is not None:
            notes += _led_away(every, stage.container)
    found.raise_errors()
    warnings = [finding.message for finding in found.warnings]
    return SubmittedData(tuple(dict.fromkeys([*warnings, *notes])), classes, images)


def known_classes(
    action: str, engine: EngineName, frozen: Mapping[str, Any], before: Mapping[int, str]
) -> Mapping[int, str] | None:
    """The classes of the weights that an action uses or continues; None where nobody knows yet.

    Args:
        before: of what was trained before it, or of the run that is continued.
    """
    given = value_at(frozen, f"{get_action(action).section}.checkpoint")
    if given:
        path = local_path(given)
        return classes_of(path) if path is not None and engine == "rtdetr" else None
    return before or None


def _led_away(sources: Sequence[Source], container: Container) -> Iterator[str]:
    """Sources whose images are links to where the container may see nothing."""
    seen = [Path(bind.source).resolve() for bind in container.binds]
    for source in sources:
        if source.image_dir is None:
            continue
        for name in spread(source.annotations.file_names):
            path = source.image_dir / name
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in seen):
                yield (
                    f"{path} leads to {target}, which is not bound into the container: unless the "
                    "cluster binds it by itself, add its folder to binds of the site profile"
                )
                break
