"""Image files against the annotations that name them; how far one looks into them is another's.

Standard library only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from rtdetr_slurm.data.coco import CocoAnnotations
from rtdetr_slurm.data.findings import FieldPath, Findings
from rtdetr_slurm.data.image_files import missing_files, similar_file
from rtdetr_slurm.data.image_sizes import MAX_PIXELS, read_header, size_mismatch
from rtdetr_slurm.errors import RequestError

T = TypeVar("T")

SAMPLE = 64
"""How many files of a source are looked into, spread evenly over it."""
_SHOWN = 3


@dataclass(frozen=True)
class _Problem:
    """What is wrong with some images, and whether it is with all that were looked at."""

    text: str
    with_all: bool


@dataclass(frozen=True)
class Look:
    """What files of a source look like inside.

    Attributes:
        number: of files that were looked into.
        wrong: names of those that cannot be used, with words that follow the name.
        turned: names of those that are turned without a trace in their size.
    """

    number: int
    wrong: list[tuple[str, str]]
    turned: list[str]


LookIntoImages: TypeAlias = Callable[[Path, CocoAnnotations, Collection[str]], Look]
"""Looks into files of a folder, but for those of some names, which are missing."""


def check_images(
    folder: Path,
    annotations: CocoAnnotations,
    at: FieldPath,
    found: Findings,
    *,
    skip_bad_images: bool,
    look: LookIntoImages,
) -> None:
    """Check that all files are there, and of those that are looked into that they can be used.

    Args:
        at: the source's place in the spec.
        skip_bad_images: such images are left out in the end; unless it is all of them, say so.
    """
    where = f"{annotations.path} and {folder} (dataset.{at[1]})"
    field = (*at, "image_dir")
    try:
        missing = missing_files(folder, annotations.file_names)
    except RequestError as error:
        found.error(field, str(error))
        return
    looked = look(folder, annotations, {*missing})
    problems = [
        *_missing(folder, missing, annotations),
        *_wrong(looked),
        *_too_large(annotations),
    ]
    hopeless = any(problem.with_all for problem in problems)
    instead = ""
    if not hopeless and at[1] in ("train_data_sources", "val_data_sources"):
        instead = ". Or train without such images: job.bad_images: skip"
    for problem in problems:
        if hopeless or not skip_bad_images:
            found.error(field, f"{where}: {problem.text}{instead}")
        else:
            found.warn(field, f"{where}: {problem.text}; such images are left out")
    for note in _notes(annotations, looked):
        found.warn(field, f"{where}: {note}")


def spread(items: Sequence[T], most: int = SAMPLE) -> Sequence[T]:
    """At most so many of them, evenly from the first on."""
    return items[:: max(1, math.ceil(len(items) / most))]


def look_into_headers(folder: Path, annotations: CocoAnnotations, missing: Collection[str]) -> Look:
    """Of some images, what their headers say."""
    chosen = spread([i for i, name in enumerate(annotations.file_names) if name not in missing])
    look = Look(len(chosen), [], [])
    for index in chosen:
        name = annotations.file_names[index]
        stated = annotations.widths[index], annotations.heights[index]
        try:
            header = read_header(folder / name)
        except OSError as error:
            look.wrong.append((name, unreadable(folder / name, error)))
            continue
        problems = [size_mismatch(stated, size) for size in header.sizes]
        if problems and problems[0] and all(problems):
            look.wrong.append((name, problems[0]))
        elif header.is_turned_unseen(stated):
            look.turned.append(name)
    return look


def unreadable(path: Path, error: OSError) -> str:
    """What is wrong with a file that cannot be read, in words that follow its name."""
    link = ""
    if path.is_symlink():
        link = f"leads to {path.readlink()} (in a container only what is bound exists) and "
    return f"{link}cannot be read: {error.strerror}"


def _missing(
    folder: Path, missing: Sequence[str], annotations: CocoAnnotations
) -> Iterator[_Problem]:
    if missing:
        similar = similar_file(folder, missing[0])
        instead = f"; there is {similar!r}, but no {missing[0]!r}" if similar else ""
        yield _Problem(
            f"{len(missing)} of the {annotations.num_images} image files do not exist: "
            f"{_first(missing)}{instead}. image_dir and file_name must join to an image's path",
            with_all=len(missing) == annotations.num_images,
        )


def _wrong(look: Look) -> Iterator[_Problem]:
    if look.wrong:
        name, problem = look.wrong[0]
        others = [other for other, _ in look.wrong[1:]]
        yield _Problem(
            f"{len(look.wrong)} of {look.number} images looked into are wrong: {name!r} {problem}"
            + (f" (also wrong: {_first(others)})" if others else ""),
            with_all=len(look.wrong) == look.number,
        )


def _too_large(annotations: CocoAnnotations) -> Iterator[_Problem]:
    sizes = zip(annotations.file_names, annotations.widths, annotations.heights, strict=True)
    names = [name for name, width, height in sizes if width * height > MAX_PIXELS]
    if names:
        yield _Problem(
            f"{len(names)} images have more than {MAX_PIXELS} pixels, the most that are decoded: "
            f"{_first(names)}. Cut them into tiles",
            with_all=len(names) == annotations.num_images,
        )


def _notes(annotations: CocoAnnotations, look: Look) -> Iterator[str]:
    if look.turned:
        yield (
            f"{len(look.turned)} of {look.number} images looked into are turned or mirrored by "
            f"their EXIF orientation ({_first(look.turned)}), which is applied here: their boxes "
            "must be those of the upright image"
        )
    again = annotations.num_images - len({*annotations.file_names})
    if again:
        yield (
            f"{again} of {annotations.num_images} entries of 'images' name a file that another "
            "names, too: each is an image of its own here, and has its own boxes alone"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
