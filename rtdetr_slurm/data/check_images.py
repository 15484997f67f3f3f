"""Image files against the annotations that name them, without decoding one.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.image_files import missing_files, similar_file
from rtdetr_slurm.data.image_sizes import MAX_PIXELS, header_sizes, size_mismatch
from rtdetr_slurm.errors import RequestError

T = TypeVar("T")

SAMPLE = 64
"""How many files of a source are looked into, spread evenly over it."""
_SHOWN = 3


def check_images(
    folder: Path, annotations: CocoAnnotations, setting: str, *, skip_bad_images: bool
) -> list[str]:
    """Check that all files are there, and of some that they have the size that is stated.

    Args:
        setting: the spec field that names the source.
        skip_bad_images: such images are left out in the end; unless it is all of them, say so.

    Returns:
        Notes.

    Raises:
        RequestError: naming the first files, and what there is instead.
    """
    problems, most = [], 0
    missing = missing_files(folder, annotations.file_names)
    looked_into, found = _sample(folder, annotations, {*missing})
    for bad, of, problem in (
        (len(missing), annotations.num_images, _describe_missing(folder, missing, annotations)),
        (len(found), looked_into, _describe_found(found, looked_into)),
        _too_large(annotations),
    ):
        if bad:
            problems.append(problem)
            most = max(most, int(bad == of))
    if not problems:
        return []
    where = f"{annotations.path} and {folder} ({setting})"
    if most or not skip_bad_images:
        advice = "" if most else ". Or train without such images: job.bad_images: skip"
        raise RequestError(f"{where}: {'; '.join(problems)}{advice}")
    return [f"{where}: {problem}; such images are left out" for problem in problems]


def spread(items: Sequence[T]) -> Sequence[T]:
    """At most SAMPLE of them, evenly from the first on."""
    return items[:: max(1, math.ceil(len(items) / SAMPLE))]


def _describe_missing(folder: Path, missing: Sequence[str], annotations: CocoAnnotations) -> str:
    if not missing:
        return ""
    similar = similar_file(folder, missing[0])
    instead = f"; there is {similar!r}, but no {missing[0]!r}" if similar else ""
    return (
        f"{len(missing)} of the {annotations.num_images} image files do not exist: "
        f"{_first(missing)}{instead}. image_dir and file_name must join to an image's path"
    )


def _sample(
    folder: Path, annotations: CocoAnnotations, missing: set[str]
) -> tuple[int, list[tuple[str, str]]]:
    """Look into some files; how many, and what is wrong with which."""
    chosen = spread([i for i, name in enumerate(annotations.file_names) if name not in missing])
    wrong = []
    for index in chosen:
        name = annotations.file_names[index]
        stated = annotations.widths[index], annotations.heights[index]
        try:
            sizes = header_sizes(folder / name)
        except OSError as error:
            wrong.append((name, f"{_link(folder / name)}cannot be read: {error.strerror}"))
            continue
        problems = [size_mismatch(stated, size) for size in sizes]
        if problems and problems[0] and all(problems):
            wrong.append((name, problems[0]))
    return len(chosen), wrong


def _link(path: Path) -> str:
    if not path.is_symlink():
        return ""
    return f"leads to {path.readlink()} (in a container only what is bound exists) and "


def _describe_found(found: Sequence[tuple[str, str]], of: int) -> str:
    if not found:
        return ""
    name, problem = found[0]
    return f"{len(found)} of {of} images looked into are wrong: {name!r} {problem}"


def _too_large(annotations: CocoAnnotations) -> tuple[int, int, str]:
    sizes = zip(annotations.file_names, annotations.widths, annotations.heights, strict=True)
    names = [name for name, width, height in sizes if width * height > MAX_PIXELS]
    problem = (
        f"{len(names)} images have more than {MAX_PIXELS} pixels, the most that are decoded: "
        f"{_first(names)}. Cut them into tiles"
    )
    return len(names), annotations.num_images, problem


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
