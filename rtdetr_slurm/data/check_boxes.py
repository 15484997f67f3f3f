"""Boxes that make a training or its scores worthless, or worth less. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rtdetr_slurm.data.boxes import FEW, OVERHANG, BoxCounts, count_boxes, likely_cause, misread
from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.findings import FieldPath, Findings

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig

SCORED_PER_IMAGE = 100
"""COCO's metrics count so many detections of an image."""


def check_boxes(
    annotations: CocoAnnotations, at: FieldPath, experiment: ExperimentConfig, found: Findings
) -> str | None:
    """Check the boxes of a source for what they are read for.

    Args:
        at: the source's place in the spec: of what is trained on, of val or of test.

    Returns:
        Of a training source why none of its boxes can be trained on; None where some can, or it has
        none.
    """
    trains = at[1] == "train_data_sources"
    counts = count_boxes(annotations, _network_size(experiment) if trains else None)
    field, where = (*at, "json_file"), f"{annotations.path} (dataset.{at[1]})"
    if wrong := misread(counts):
        found.error(field, f"{where}: {wrong}")
        return None
    if counts.total and not counts.trained:
        lost = f"{_lost(counts)}{likely_cause(counts)}"
        why = f"{where}: none of its {counts.total} boxes can be used: {lost}"
        if not trains:
            found.error(field, why)
        return why if trains else None
    if not trains and (problem := _nothing_to_score(annotations, experiment)):
        found.error(field, f"{where}: {problem}")
        return None
    own = _training_notes if trains else _scoring_notes
    for note in (*_common_notes(counts, annotations), *own(counts, annotations, experiment)):
        found.warn(field, f"{where}: {note}")
    return None


def _nothing_to_score(annotations: CocoAnnotations, experiment: ExperimentConfig) -> str | None:
    wanted = set(experiment.dataset.eval_class_ids or annotations.categories)
    labels = zip(annotations.category_ids, annotations.crowds, strict=True)
    if any(category in wanted and not crowd for category, crowd in labels):
        return None
    of = "of dataset.eval_class_ids " if experiment.dataset.eval_class_ids else ""
    return (
        f"it has no boxes {of}to find, so there is nothing to score; name another file, or none "
        "where the action needs none"
    )


def _common_notes(counts: BoxCounts, annotations: CocoAnnotations) -> Iterator[str]:
    if annotations.repeated:
        yield (
            f"{annotations.repeated} of {counts.total} annotations have the id of another: each is "
            "a box of its own here, but pycocotools, and with it NVIDIA TAO, scores one in place "
            "of the other. Number them anew"
        )
    unknown = sum(not width for width in annotations.widths)
    if unknown and counts.total:
        yield (
            f"{unknown} of {annotations.num_images} images have no width and height in it: whether "
            "their boxes lie inside of them is not known before they are decoded"
        )
    if counts.beyond > FEW * counts.single:
        yield (
            f"{counts.beyond} of {counts.total} boxes reach more than {OVERHANG} pixel out of "
            f"their image{likely_cause(counts)}"
        )


def _training_notes(
    counts: BoxCounts, annotations: CocoAnnotations, experiment: ExperimentConfig
) -> Iterator[str]:
    if counts.trained < counts.total:
        lost = f"{_lost(counts)}{likely_cause(counts)}"
        yield f"{counts.trained} of {counts.total} boxes are trained on; not: {lost}"
    if counts.tiny:
        height, width = _network_size(experiment)
        yield (
            f"{counts.tiny} of {counts.total} boxes are less than a pixel wide or high once their "
            f"image is resized to dataset.augmentation.train_spatial_size [{height}, {width}]: "
            "they are trained on only where a crop enlarges them"
        )
    most, image = counts.fullest_trained
    queries = experiment.model.num_queries
    if most > queries:
        yield (
            f"up to {most} boxes in an image ({annotations.file_names[image]!r}), more than "
            f"model.num_queries {queries}: the others cannot be matched. Raise model.num_queries, "
            "or cut the images into tiles"
        )


def _scoring_notes(
    counts: BoxCounts, annotations: CocoAnnotations, experiment: ExperimentConfig
) -> Iterator[str]:
    most, image = counts.fullest
    kept = experiment.model.num_select
    if most > min(SCORED_PER_IMAGE, kept):
        yield (
            f"up to {most} boxes in an image ({annotations.file_names[image]!r}), but COCO's "
            f"metrics count {SCORED_PER_IMAGE} detections of an image, and model.num_select keeps "
            f"{kept}: the others count as not found"
        )


def _network_size(experiment: ExperimentConfig) -> tuple[int, int]:
    height, width = experiment.dataset.augmentation.train_spatial_size
    return height, width


def _lost(counts: BoxCounts) -> str:
    reasons = (
        (counts.crowd, "crowd regions (iscrowd 1)"),
        (counts.negative, "of negative width or height"),
        (counts.small, "less than a pixel wide or high"),
        (counts.outside, "with less than a pixel inside their image"),
    )
    return ", ".join(f"{number} {what}" for number, what in reasons if number)
