"""Weights of classes and sources against the training data. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rtdetr_slurm.data.classes import described, find_classes
from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.findings import FieldPath, Findings
from rtdetr_slurm.errors import near

if TYPE_CHECKING:
    from rtdetr_slurm.spec.engine import SamplingConfig

_SAMPLING: FieldPath = ("engine", "sampling")


def check_sampling(
    training: Sequence[CocoAnnotations], sampling: SamplingConfig, found: Findings
) -> None:
    """Refuse weights of classes that the data do not have, and such that leave nothing to learn.

    Args:
        training: all sources of the training set, in the spec's order.
    """
    classes, _ = find_classes(training)
    for name in sampling.class_weights:
        if name not in classes.values():
            found.error(
                (*_SAMPLING, "class_weights", name),
                f"engine.sampling.class_weights has {name!r}; the training data have the classes "
                f"{described(classes)}{near(name, classes.values())}",
            )
    weighed = {id_ for id_, name in classes.items() if sampling.class_weights.get(name, 1.0) > 0}
    by_source = sampling.source_weights or [1.0] * len(training)
    drawn = [one for one, weight in zip(training, by_source, strict=True) if weight > 0]
    boxes = any(one.num_boxes for one in training)
    if boxes and not any(weighed.intersection(one.category_ids) for one in drawn):
        found.error(
            _SAMPLING,
            "engine.sampling: every image that has boxes has weight 0; allowed: a weight above 0 "
            "for a class that has boxes, and for a source with it",
        )
