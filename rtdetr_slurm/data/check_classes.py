"""Category ids of several sources against one another and against the spec. Standard library
only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rtdetr_slurm.data.classes import described, find_classes, too_few_classes
from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.findings import FieldPath, Findings

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import DatasetConfig

NUM_CLASSES, EVAL_CLASS_IDS = "dataset.num_classes", "dataset.eval_class_ids"
"""Fields that the annotations say the right values of."""
_NUM_CLASSES: FieldPath = ("dataset", "num_classes")
_EVAL_CLASS_IDS: FieldPath = ("dataset", "eval_class_ids")


def check_classes(
    sources: Sequence[tuple[FieldPath, CocoAnnotations]],
    dataset: DatasetConfig,
    found: Findings,
    *,
    trains: bool,
    scored: Sequence[CocoAnnotations],
) -> None:
    """Ids and names that are not one to one, that do not fit the spec's classes, or that no
    annotation has.

    Args:
        sources: with their places in the spec.
        trains: whether a detector of dataset.num_classes is made, which may be another number.
        scored: those of the sources for which dataset.eval_class_ids says what counts.
    """
    _, conflicts = find_classes([one for _, one in sources])
    contrary = {id(one): conflict for one, conflict in conflicts}
    for at, one in sources:
        if conflict := contrary.get(id(one)):
            found.error((*at, "json_file"), conflict)
    every = [one for _, one in sources if id(one) not in contrary]
    names, _ = find_classes(every)
    if not names:
        return
    right = right_values(every)
    if dataset.eval_class_ids and {*dataset.eval_class_ids} <= {*names}:
        del right[EVAL_CLASS_IDS]  # some of those that there are were chosen
    if problem := too_few_classes(every, names, dataset.num_classes):
        found.error(_NUM_CLASSES, problem, right)
    elif trains and max(names) + 1 < dataset.num_classes:
        found.warn(
            _NUM_CLASSES,
            f"dataset.num_classes is {dataset.num_classes}, and the data have category ids up to "
            f"{max(names)}: {max(names) + 1} is enough, and what comes later has to say the same",
            correction=right,
        )
    for one in scored:
        _check_eval_class_ids(one, dataset, right, found)
    _note_unused(every, names, found)


def right_values(sources: Sequence[CocoAnnotations]) -> dict[str, Any]:
    """Fields of the spec with the values that the annotations ask for: room for all ids, and scores
    of those that have annotations. Nothing where there are no classes."""
    names, _ = find_classes(sources)
    used = {category for source in sources for category in source.category_ids} & {*names}
    if not names:
        return {}
    return {NUM_CLASSES: max(names) + 1, EVAL_CLASS_IDS: sorted(used or names)}


def _check_eval_class_ids(
    annotations: CocoAnnotations,
    dataset: DatasetConfig,
    right: Mapping[str, Any],
    found: Findings,
) -> None:
    """TAO's form of a spec for people has eval_class_ids [1], which TAO passes over."""
    classes, _ = find_classes([annotations])
    counted = set(dataset.eval_class_ids or classes)
    unknown = sorted(counted - set(classes))
    if unknown:
        found.error(
            _EVAL_CLASS_IDS,
            f"dataset.eval_class_ids holds {unknown}, but {annotations.path} has the classes "
            f"{described(classes)}; null counts all classes",
            right,
        )
        return
    with_boxes = set(annotations.category_ids)
    left_out = {id_: name for id_, name in classes.items() if id_ in with_boxes - counted}
    if left_out:
        found.warn(
            _EVAL_CLASS_IDS,
            f"{annotations.path}: by dataset.eval_class_ids {sorted(counted)} no score counts "
            f"{described(left_out)}; null counts all classes",
        )


def _note_unused(
    sources: Sequence[CocoAnnotations], names: Mapping[int, str], found: Findings
) -> None:
    used = {category for source in sources for category in source.category_ids}
    unused = {id_: name for id_, name in names.items() if id_ not in used}
    if not unused or not used:
        return
    files = ", ".join(dict.fromkeys(str(source.path) for source in sources))
    root = min(names)
    found.warn(
        _NUM_CLASSES,
        f"no annotation in {files} has the categories {described(unused)}: nothing is learned or "
        "scored of them"
        + (
            f". Tools that export put a root class like {names[root]!r} above all others; its id "
            "does no harm"
            if unused.keys() == {root}
            else ""
        ),
    )
