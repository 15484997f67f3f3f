"""The data of a submission: what the engine would find, found on the login node."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.data.check import check_batch_fits, check_sources
from rtdetr_slurm.data.check_images import spread
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.plan.model import Container, Stage
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec


def check_data(
    loaded: LoadedSpec, frozen: Mapping[str, Any], stages: Sequence[Stage]
) -> tuple[str, ...]:
    """Check the data of every stage, at the paths that the frozen spec names; returns notes.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
        ActionError: the memory does not suffice for the annotations.
    """
    experiment = ExperimentConfig.model_validate(frozen)
    read = cache(read_annotations)
    notes: list[str] = []
    for stage in stages:
        trains = get_action(stage.action).trains
        skip = trains and loaded.job.bad_images == "skip"
        checked = check_sources(experiment, stage.action, skip_bad_images=skip, read=read)
        notes += checked.notes
        if trains:
            images = sum(source.annotations.num_images for source in checked.sources["train"])
            ranks = stage.resources.nodes * stage.resources.gpus_per_node
            check_batch_fits(images, experiment.dataset.batch_size, ranks)
        if stage.container is not None:
            every = [source for group in checked.sources.values() for source in group]
            notes += _led_away(every, stage.container)
    return tuple(dict.fromkeys(notes))


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
