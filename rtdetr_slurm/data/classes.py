"""Category ids as class indices, as in TAO: a head with `num_classes` logits serves ids
0 .. num_classes-1. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import DatasetConfig


def class_names(sources: Sequence[CocoAnnotations], num_classes: int) -> dict[int, str]:
    """The classes of several sources together, id to name, sorted by id.

    A second id of a name is left out where it has no boxes: Roboflow's files have one for the group
    of all classes, named as the only class may be.

    Raises:
        RequestError: an id does not fit into `num_classes`, or ids and names are not one to one.
    """
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    origin: dict[int, Path] = {}
    used = {category for source in sources for category in source.category_ids}
    entries = [(source, *entry) for source in sources for entry in source.categories.items()]
    for source, category, name in sorted(entries, key=lambda entry: entry[1] not in used):
        if names.get(category, name) != name:
            raise RequestError(
                f"category id {category} is {names[category]!r} in {origin[category]} and "
                f"{name!r} in {source.path}: the same id must mean the same class everywhere"
                + _mapping(source, ids)
            )
        if ids.get(name, category) != category:
            if category not in used:
                continue
            raise RequestError(
                f"class {name!r} has id {ids[name]} in {origin[ids[name]]} and id {category} "
                f"in {source.path}: two ids are two classes to the network" + _mapping(source, ids)
            )
        names[category], ids[name] = name, category
        origin.setdefault(category, source.path)
    if names and max(names) >= num_classes:
        _too_few_classes(names, origin[max(names)], num_classes)
    return dict(sorted(names.items()))


def note_on_idle_classes(names: Mapping[int, str], num_classes: int) -> Iterator[str]:
    """A line where a detector is trained for more classes than there are."""
    if names and max(names) + 1 < num_classes:
        yield (
            f"dataset.num_classes is {num_classes}, and the data have category ids up to "
            f"{max(names)}: {max(names) + 1} is enough, and what comes later has to say the same"
        )


def class_changes(before: Mapping[int, str], now: Mapping[int, str]) -> Iterator[str]:
    """Where the same id has another name now than in training, or a name another id."""
    ids = {name: category for category, name in now.items()}
    for category, name in before.items():
        if ids.get(name, category) != category:
            yield f"class {name!r} had id {category} in training and has id {ids[name]}"
        elif now.get(category, name) != name:
            yield f"class {category} was {name!r} in training and is {now[category]!r}"


def check_same_ids(trained: Mapping[int, str], scored: Mapping[int, str], path: Path) -> None:
    """Refuse annotations of the classes that were trained of which every one has another id, as
    where one side counts from 0 and the other from 1.

    Args:
        trained, scored: id to name.
        path: of the annotations.

    Raises:
        RequestError: no score would mean anything.
    """
    ids = {name: number for number, name in trained.items()}
    shared = {name: number for number, name in scored.items() if name in ids}
    if shared and all(ids[name] != number for name, number in shared.items()):
        name, number = next(iter(shared.items()))
        raise RequestError(
            f"every class that {path} and the weights both have has another id in each: {name!r} "
            f"is {number} there, and {ids[name]} of the weights, so that nothing would be scored "
            "as what it is. Give the annotations the weights' ids (of MS COCO's own, "
            "dataset.remap_mscoco_category: true does)"
        )


def check_eval_class_ids(annotations: CocoAnnotations, dataset: DatasetConfig) -> list[str]:
    """Refuse `dataset.eval_class_ids` that the annotation file does not know.

    Returns:
        Notes: on classes that have boxes and do not count. TAO's form for people has [1], which
        TAO passes over.
    """
    classes = class_names([annotations], dataset.num_classes)
    counted = set(dataset.eval_class_ids or classes)
    unknown = sorted(counted - set(classes))
    if unknown:
        raise RequestError(
            f"dataset.eval_class_ids holds {unknown}, but {annotations.path} has the classes "
            f"{_describe(classes)}"
        )
    with_boxes = set(annotations.category_ids)
    left_out = {id_: name for id_, name in classes.items() if id_ in with_boxes - counted}
    if not left_out:
        return []
    return [
        f"{annotations.path}: by dataset.eval_class_ids {sorted(counted)} no score counts "
        f"{_describe(left_out)}; null counts all classes"
    ]


def _mapping(source: CocoAnnotations, ids: Mapping[str, int]) -> str:
    """How to change the ids of a source to those that its classes have already."""
    changes = [
        f"{category} to {ids[name]} ({name!r})"
        for category, name in source.categories.items()
        if ids.get(name, category) != category
    ]
    return f". To make them one, change in {source.path} {', '.join(changes)}" if changes else ""


def _too_few_classes(names: Mapping[int, str], path: Path, num_classes: int) -> NoReturn:
    largest = max(names)
    raise RequestError(
        f"{path} has category id {largest} ({names[largest]!r}), but dataset.num_classes is "
        f"{num_classes}. Category ids are used as class indices, so num_classes must be at least "
        f"the largest id + 1: set dataset.num_classes to {largest + 1}"
    )


def _describe(categories: Mapping[int, str], limit: int = 12) -> str:
    shown = [f"{category} ({name})" for category, name in sorted(categories.items())[:limit]]
    return ", ".join(shown) + (", ..." if len(categories) > limit else "")
