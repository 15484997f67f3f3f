"""Where in an unpacked archive the file names of its annotations begin. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rtdetr_slurm.data.image_files import missing_files, similar_file
from rtdetr_slurm.data.image_sources import is_shown
from rtdetr_slurm.errors import RequestError

_SHOWN = 12
"""So many names of a folder are shown at most."""


def image_root(content: Path, names: Sequence[str], stem: str) -> Path:
    """The folder that the file names of an annotation file are relative to.

    An archive `images.tar.gz` may hold `images/x.jpg` or `x.jpg`, and its annotations may say
    either: the names are looked for as they are in the archive, below its only top folder, and with
    the archive's own name in front. Images that are missing there are for the check to name.

    Args:
        content: what was unpacked, in the folder `stem`.
        names: file_name of the images, none of which leads out of the archive.
        stem: the archive's name without its suffix.

    Raises:
        RequestError: there are images of these names below two of the folders, so that nobody knows
            which are meant; or below none.
    """
    outside = next((name for name in names if _leads_out(name)), None)
    if outside is not None:
        raise RequestError(
            f"file_name {outside!r} leads out of the archive; allowed are names relative to its "
            "top, or to its only top folder"
        )
    if not names:
        return content / stem
    places = [*_places(content, stem)]
    missing = {place: missing_files(place, names) for place in places}
    holding = [place for place in places if len(missing[place]) < len(names)]
    if not holding:
        raise RequestError(_none_there(places, names))
    if len(holding) > 1:
        raise RequestError(_ambiguous(content, holding, names, missing))
    return holding[0]


def _places(content: Path, stem: str) -> Iterator[Path]:
    yield content / stem
    top = [entry for entry in (content / stem).iterdir() if is_shown(entry.name)]
    if len(top) == 1 and top[0].is_dir():
        yield top[0]
    yield content


def _ambiguous(
    content: Path, holding: Sequence[Path], names: Sequence[str], missing: dict[Path, list[str]]
) -> str:
    found = []
    for place in holding:
        lacking = {*missing[place]}
        name = next(name for name in names if name not in lacking)
        found.append(
            f"{(place / name).relative_to(content)} ({len(names) - len(lacking)} of {len(names)} "
            "names are there)"
        )
    return (
        f"file_name can be read in more than one way: there is {' and '.join(found)}. Give the "
        "images names that are there once, or pack them without the folder that is in the way"
    )


def _none_there(places: Sequence[Path], names: Sequence[str]) -> str:
    similar = next(filter(None, (similar_file(place, names[0]) for place in places)), None)
    top = sorted(entry.name for entry in places[0].iterdir())
    shown = ", ".join(map(repr, top[:_SHOWN])) + (", ..." * (len(top) > _SHOWN))
    return (
        f"none of the {len(names)} image files that the annotations name is in the archive, such "
        f"as {names[0]!r}"
        + (f"; there is {similar!r}" if similar else "")
        + f"; at its top there is {shown or 'nothing'}. file_name must be a path in the archive, "
        "with or without its only top folder"
    )


def _leads_out(name: str) -> bool:
    return name.startswith("/") or ".." in name.split("/")
