"""Category ids as class indices, as in TAO: a head with `num_classes` logits serves ids
0 .. num_classes-1. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.mscoco import MSCOCO_CLASSES, is_mscoco
from rtdetr_slurm.errors import RequestError


def class_names(sources: Sequence[CocoAnnotations], num_classes: int) -> dict[int, str]:
    """The classes of several sources together, id to name, sorted by id; as `find_classes`.

    Raises:
        RequestError: an id does not fit into `num_classes`, or ids and names are not one to one.
    """
    names, conflicts = find_classes(sources)
    problems = [conflict for _, conflict in conflicts]
    if too_few := too_few_classes(sources, names, num_classes):
        problems.append(too_few)
    if problems:
        raise RequestError("\n".join(problems))
    return names


def find_classes(
    sources: Sequence[CocoAnnotations],
) -> tuple[dict[int, str], list[tuple[CocoAnnotations, str]]]:
    """The classes of several sources together, id to name, sorted by id.

    A second id of a name is left out where it has no boxes: Roboflow's files have one for the group
    of all classes, named as the only class may be.

    Returns:
        The classes; and for each source that contradicts one before it, or itself, how.
    """
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    origin: dict[int, Path] = {}
    conflicts: dict[int, tuple[CocoAnnotations, str]] = {}
    used = {category for source in sources for category in source.category_ids}
    entries = [(source, *entry) for source in sources for entry in source.categories.items()]
    for source, category, name in sorted(entries, key=lambda entry: entry[1] not in used):
        conflict = ""
        if names.get(category, name) != name:
            conflict = (
                f"category id {category} is {names[category]!r} in {origin[category]} and "
                f"{name!r} in {source.path}: the same id must mean the same class everywhere"
            )
        elif ids.get(name, category) != category:
            if category not in used:
                continue
            conflict = (
                f"class {name!r} has id {ids[name]} in {origin[ids[name]]} and id {category} "
                f"in {source.path}: two ids are two classes to the network"
            )
        if conflict:
            # All others of the source follow from what is to be changed in it.
            conflicts.setdefault(id(source), (source, conflict + _mapping(source, ids)))
            continue
        names[category], ids[name] = name, category
        origin.setdefault(category, source.path)
    return dict(sorted(names.items())), [*conflicts.values()]


def too_few_classes(
    sources: Sequence[CocoAnnotations], names: Mapping[int, str], num_classes: int
) -> str | None:
    """What is wrong where an id does not fit into `num_classes`, with the values that are right."""
    largest = max(names, default=-1)
    if largest < num_classes:
        return None
    path = next(source.path for source in sources if largest in source.categories)
    used = sorted({category for source in sources for category in source.category_ids} & {*names})
    return (
        f"{path} has category id {largest} ({names[largest]!r}), but dataset.num_classes is "
        f"{num_classes}. Category ids are used as class indices, so num_classes must be at least "
        f"the largest id + 1: set dataset.num_classes to {largest + 1}, and dataset.eval_class_ids "
        f"to {used or sorted(names)}, or to null, which counts all"
        + (
            "; or, for MS COCO's own ids, dataset.remap_mscoco_category to true and "
            f"dataset.num_classes to {MSCOCO_CLASSES}"
            if all(map(is_mscoco, sources))
            else ""
        )
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


def _mapping(source: CocoAnnotations, ids: Mapping[str, int]) -> str:
    """How to change the ids of a source to those that its classes have already."""
    changes = [
        f"{category} to {ids[name]} ({name!r})"
        for category, name in source.categories.items()
        if ids.get(name, category) != category
    ]
    return f". To make them one, change in {source.path} {', '.join(changes)}" if changes else ""


def described(categories: Mapping[int, str], limit: int = 12) -> str:
    """Classes as a message shows them, `1 (cat), 3 (dog)`; of many the first."""
    shown = [f"{category} ({name})" for category, name in sorted(categories.items())[:limit]]
    return ", ".join(shown) + (", ..." if len(categories) > limit else "")
