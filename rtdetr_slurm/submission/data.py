"""The data of a submission: what the engine would find, found on the login node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.data.check import check_batch_fits, check_sources
from rtdetr_slurm.data.check_images import spread
from rtdetr_slurm.data.classes import check_same_ids, class_changes, class_names
from rtdetr_slurm.data.classmap import inference_classes
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.plan.model import Container, Stage
from rtdetr_slurm.resolved_spec import local_path, value_at
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec
from rtdetr_slurm.submission.weights import classes_of


@dataclass(frozen=True)
class Findings:
    """What the data are like.

    Attributes:
        classes: id to name, of what is trained; else of what was trained before.
        images: that are trained on; None where nothing is trained.
    """

    notes: tuple[str, ...]
    classes: Mapping[int, str]
    images: int | None = None


def check_data(
    loaded: LoadedSpec,
    frozen: Mapping[str, Any],
    stages: Sequence[Stage],
    trained: Mapping[int, str],
) -> Findings:
    """Check the data of every stage, at the paths that the frozen spec names.

    Args:
        trained: classes of the run that is continued, id to name; empty where they are not known.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
        ActionError: the memory does not suffice for the annotations.
    """
    experiment = ExperimentConfig.model_validate(frozen)
    read = cache(read_annotations)
    notes: list[str] = []
    classes, images = trained, None
    for stage in stages:
        trains = get_action(stage.action).trains
        skip = trains and loaded.job.bad_images == "skip"
        checked = check_sources(
            experiment, stage.action, engine=stage.launch.engine, skip_bad_images=skip, read=read
        )
        notes += checked.notes
        every = [source for group in checked.sources.values() for source in group]
        named = class_names([one.annotations for one in every], experiment.dataset.num_classes)
        known = _known_classes(stage, frozen, classes)
        if "test" in get_action(stage.action).reads:
            check_same_ids(known or {}, named, checked.sources["test"][0].annotations.path)
        notes += [
            f"{change} in the data of {stage.name}; if these are different things, its results "
            "mean nothing"
            for change in class_changes(known or {}, named)
        ]
        if "infer" in get_action(stage.action).reads:
            notes += inference_classes(experiment, known)[1]
        if trains:
            classes = named
            images = sum(source.annotations.num_images for source in checked.sources["train"])
            ranks = stage.resources.nodes * stage.resources.gpus_per_node
            check_batch_fits(images, experiment.dataset.batch_size, ranks)
        if stage.container is not None:
            notes += _led_away(every, stage.container)
    return Findings(tuple(dict.fromkeys(notes)), classes, images)


def _known_classes(
    stage: Stage, frozen: Mapping[str, Any], before: Mapping[int, str]
) -> Mapping[int, str] | None:
    """The classes of the weights that a stage uses or continues; None where nobody knows yet.

    Args:
        before: of what was trained before it, or of the run that is continued.
    """
    section = get_action(stage.action).section
    given = value_at(frozen, f"{section}.checkpoint")
    if given:
        path = local_path(given)
        return classes_of(path) if path is not None and stage.launch.engine == "rtdetr" else None
    return before or None


def _led_away(sources: Sequence[Source], container: Container) -> Iterator[str]:
    """Sources whose images are links to where the container may see nothing."""
    seen = [Path(bind.source).resolve() for bind in container.binds]
    for source in sources:
        for name in spread(source.annotations.file_names):
            path = source.image_dir / name
            target = path.resolve()
            if not any(target.is_relative_to(place) for place in seen):
                yield (
                    f"{path} leads to {target}, which is not bound into the container: unless the "
                    "cluster binds it by itself, add its folder to binds of the site profile"
                )
                break
