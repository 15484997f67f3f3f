"""The data of a submission: what the engine would find, found on the login node."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.data.check import check_batch_fits, check_sources
from rtdetr_slurm.data.coco import read_annotations
from rtdetr_slurm.spec import ExperimentConfig, LoadedSpec


def check_data(loaded: LoadedSpec, frozen: Mapping[str, Any]) -> tuple[str, ...]:
    """Check the data of every action, at the paths that the frozen spec names; returns notes.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
        ActionError: the memory does not suffice for the annotations.
    """
    experiment = ExperimentConfig.model_validate(frozen)
    read = cache(read_annotations)
    notes: list[str] = []
    for action in dict.fromkeys(loaded.actions):
        trains = get_action(action).trains
        skip = trains and loaded.job.bad_images == "skip"
        checked = check_sources(experiment, action, skip_bad_images=skip, read=read)
        notes += checked.notes
        if trains:
            images = sum(source.annotations.num_images for source in checked.sources["train"])
            asked = loaded.topology_of(action)
            ranks = asked.num_nodes * asked.num_gpus
            check_batch_fits(images, experiment.dataset.batch_size, ranks)
    return tuple(dict.fromkeys(notes))
