"""What the classes of an inference are called, and drawn in. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.data.classes import class_changes
from rtdetr_slurm.errors import RequestError, near
from rtdetr_slurm.records import read_file

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig

CLASSMAP_FIELD = ("dataset", "infer_data_sources", "classmap")
_FIELD = ".".join(CLASSMAP_FIELD)


def inference_classes(
    experiment: ExperimentConfig, trained: Mapping[int, str] | None
) -> tuple[dict[int, str], list[str]]:
    """The names of the classes, id to name: of the class map, else those of the training.

    Args:
        trained: classes of the checkpoint, empty where it does not say; None: it is not known yet.

    Returns:
        The names, for every id below dataset.num_classes unless `trained` is None, and notes.

    Raises:
        RequestError: the class map is none, does not fit num_classes, or has a class of the
            training at another id; inference.color_map has a class that does not exist.
    """
    source, notes = experiment.dataset.infer_data_sources, []
    names = dict(trained or {})
    if source is not None and source.classmap:
        mapped = read_classmap(Path(source.classmap), experiment.dataset.num_classes)
        notes = _compare(Path(source.classmap), mapped, trained, experiment.dataset.num_classes)
        names = mapped
    elif trained is not None and not trained:
        notes = [
            "the weights do not say what their classes are called, and there is no "
            f"{_FIELD}: they are called class_0, class_1, ..."
        ]
    if trained is not None:
        ids = range(experiment.dataset.num_classes)
        names = {i: names.get(i, f"class_{i}") for i in ids}
    if names:
        _check_color_map(experiment.inference.color_map or {}, names)
    return names, notes


def read_classmap(path: Path, num_classes: int) -> dict[int, str]:
    """A text file with one class name per line, of which the first is class 0.

    Raises:
        RequestError: it cannot be read, has an empty line, a name twice, or too many names.
    """
    try:
        lines = read_file(path).decode("utf-8-sig").rstrip().splitlines()
    except FileNotFoundError:
        raise RequestError(f"{path} ({_FIELD}) does not exist") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} ({_FIELD}) is not UTF-8 text") from None
    names: dict[str, int] = {}
    for number, line in enumerate(lines):
        name = line.strip()
        problem = None
        if not name or not name.isprintable():
            problem = "holds no name" if not name else "holds characters that no name has"
        elif name in names:
            problem = f"holds {name!r}, as line {names[name] + 1} does"
        if problem:
            raise RequestError(
                f"{path}:{number + 1} ({_FIELD}) {problem}; line 1 is class 0, and each class, "
                "also one that never occurs, has a line and a name of its own"
            )
        names[name] = number
    if not names or len(names) > num_classes:
        raise RequestError(
            f"{path} ({_FIELD}) has {len(names)} names, and dataset.num_classes is {num_classes}; "
            f"allowed: 1..{num_classes}, one for each class index from 0 on"
        )
    return {number: name for name, number in names.items()}


def _compare(
    path: Path, mapped: Mapping[int, str], trained: Mapping[int, str] | None, num_classes: int
) -> list[str]:
    """Refuse a map that names the wrong things, and say what is called otherwise."""
    if trained is None:
        return []
    ids = {name: number for number, name in mapped.items()}
    moved = [n for n, name in trained.items() if ids.get(name, n) != n]
    if moved:
        raise RequestError(
            f"{path} ({_FIELD}) has {trained[moved[0]]!r} on line {ids[trained[moved[0]]] + 1}, "
            f"which is class {ids[trained[moved[0]]]}, and in training it was class {moved[0]}: "
            "all names would be wrong. Line 1 is class 0, so that ids that count from 1 want a "
            "first line such as background"
        )
    unnamed = [n for n in trained or range(num_classes) if n not in mapped]
    if unnamed:
        raise RequestError(
            f"{path} ({_FIELD}) has {len(mapped)} lines, and class {unnamed[0]} has none; give "
            f"every class up to {max(trained, default=num_classes - 1)} its line"
        )
    return [f"{change} in {path}" for change in class_changes(trained, mapped)]


def _check_color_map(color_map: Mapping[str, str], names: Mapping[int, str]) -> None:
    known = [*names.values()]
    for name in color_map:
        if name not in known:
            shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
            raise RequestError(
                f"inference.color_map has a colour for {name!r}, which is no class; allowed: "
                f"{shown}{near(name, known)}"
            )
