"""Images without annotations: what `dataset.infer_data_sources` names, as sources like others.

Standard library only: looked at before a job is queued, and by the engine before its first step.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from rtdetr_slurm.actions import EngineName
from rtdetr_slurm.data.archives import is_archive, list_archive
from rtdetr_slurm.data.coco import CocoAnnotations, Source
from rtdetr_slurm.data.image_files import missing_files
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import read_file
from rtdetr_slurm.spec.dataset import ARCHIVE_SUFFIXES, LIST_SUFFIX

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
"""How the names of images end, in whatever case."""
_HDF5_SUFFIXES = (".h5", ".hdf5")
"""Of files with frames, which TAO reads."""
_NO_HDF5 = "HDF5 files are not read here; write their frames to image files"
_FIELD = "dataset.infer_data_sources, image_dir"
_SHOWN = 3


def find_images(
    entries: Sequence[str], engine: EngineName = "rtdetr"
) -> tuple[list[Source], list[str]]:
    """The images that dataset.infer_data_sources names, one source for each entry, in their order.

    A source's `image_dir` is the folder, the archive, or the folder that a list is in; its file
    names are below that, but for images of a list that are elsewhere, whose names are absolute.

    Args:
        engine: whose image reads them; TAO's reads HDF5 files, too.

    Returns:
        The sources, and notes on what is left out or not there.

    Raises:
        RequestError: an entry is none of these, cannot be read, or names no image that there is.
    """
    return list_images(entries, _FIELD, engine)


def list_images(
    entries: Sequence[str], field: str, engine: EngineName = "rtdetr"
) -> tuple[list[Source], list[str]]:
    """As `find_images`, for what a field of another name names."""
    sources: list[Source] = []
    notes: list[str] = []
    for entry in map(Path, entries):
        names, found = _names(entry, engine, field)
        notes += found
        place = entry if entry.is_dir() or is_archive(entry) else entry.parent
        ids, unknown = array("q", range(1, len(names) + 1)), array("q", bytes(8 * len(names)))
        listed = CocoAnnotations(
            entry, image_ids=ids, file_names=names, widths=unknown, heights=unknown
        )
        sources.append(Source(place, listed))
    return sources, notes


def check_apart(entries: Sequence[str], results: str) -> None:
    """Refuse a results folder in a folder of images: its pictures would be the next one's images.

    Raises:
        RequestError: naming both.
    """
    for entry in map(Path, entries):
        if results and Path(results).resolve().is_relative_to(entry.resolve()):
            raise RequestError(
                f"results are to go to {results}, which is in {entry} ({_FIELD}): a further "
                "inference would take its pictures for images. Choose another results_dir, or "
                "folders of image_dir that do not hold it"
            )


def is_image(name: str) -> bool:
    """Whether a path below a folder or in an archive is an image's, and nothing hidden."""
    parts = name.removeprefix("./").split("/")
    return all(map(is_shown, parts)) and name.lower().endswith(IMAGE_SUFFIXES)


def is_shown(name: str) -> bool:
    """Whether a file or folder is what somebody has packed, and not what a system puts beside."""
    return not name.startswith(".") and name != "__MACOSX"  # what a Mac packs beside the files


def shown_files(folder: Path) -> Iterator[Path]:
    """What is below a folder, but for what is hidden, sorted, folder by folder. Links to folders
    are followed, to each once: they may go round.

    Raises:
        OSError: a folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise error

    seen = set()
    for place, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        status = Path(place).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(filter(is_shown, folders))
        yield from (Path(place, name) for name in sorted(filter(is_shown, files)))


def _names(entry: Path, engine: EngineName, field: str) -> tuple[list[str], list[str]]:
    """Names of an entry's images, and notes."""
    if entry.is_dir():
        found = list(_in_folder(entry, field))
        names = [name for name in found if engine == "tao" or not _is_hdf5(name)]
        frames = [name for name in found if engine == "rtdetr" and _is_hdf5(name)]
        notes = [f"{entry}: left out, for {_NO_HDF5}: {_some_of(frames, 'file')}"]
        return _some(entry, names, field, _NO_HDF5 if frames else ""), notes if frames else []
    if not entry.exists():
        raise RequestError(f"{entry} ({field}) does not exist")
    if entry.is_file() and is_archive(entry):
        names, others = list_archive(entry, is_image)
        notes = [f"{entry}: left out, for they are links or no files: {_some_of(others)}"]
        return _some(entry, names, field), notes if others else []
    if entry.is_file() and entry.name.lower().endswith(LIST_SUFFIX):
        return _in_list(entry, field)
    raise RequestError(
        f"{entry} ({field}) is neither a folder, nor an archive ({', '.join(ARCHIVE_SUFFIXES)}), "
        f"nor a list of images ({LIST_SUFFIX})" + (f"; {_NO_HDF5}" if _is_hdf5(entry.name) else "")
    )


def _some(entry: Path, names: list[str], field: str, advice: str = "") -> list[str]:
    if not names:
        raise RequestError(
            f"{entry} ({field}) holds no image; these count: names that end with "
            f"{', '.join(IMAGE_SUFFIXES)}, in folders too, and nothing hidden"
            + (f"; {advice}" if advice else "")
        )
    return names


def _is_hdf5(name: str) -> bool:
    return name.lower().endswith(_HDF5_SUFFIXES)


def _in_folder(folder: Path, field: str) -> Iterator[str]:
    """Images and HDF5 files, sorted, folder by folder."""
    try:
        names = [str(path.relative_to(folder)) for path in shown_files(folder)]
    except OSError as error:
        raise RequestError(
            f"image folder {error.filename} ({field}) cannot be listed: {error.strerror}"
        ) from None
    yield from (name for name in names if is_image(name) or _is_hdf5(name))


def _in_list(path: Path, field: str) -> tuple[list[str], list[str]]:
    """One image per line, relative to the list's folder; empty lines do not count."""
    text = read_file(path).removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    lines = [line.strip() for line in text.split("\n")]
    names = [_below(path.parent, line) for line in lines if line]
    if not names:
        raise RequestError(f"{path} ({field}) lists no image: it is empty")
    if any("\0" in name for name in names):
        raise RequestError(f"{path} ({field}) is no list of images: it is not text")
    missing = missing_files(path.parent, names)
    if len(missing) == len(names):
        raise RequestError(
            f"{path} ({field}): none of the images that it lists exists, such as {missing[0]!r}; "
            f"names are relative to {path.parent}, one on a line"
        )
    notes = [f"{path}: not there, and left out: {_some_of(missing)}"]
    return names, notes if missing else []


def _below(folder: Path, name: str) -> str:
    """A name below `folder`, or an absolute one, and never with `..`."""
    whole = os.path.normpath(folder / name)
    inside = Path(whole).is_relative_to(folder)
    return os.path.relpath(whole, folder) if inside else whole


def _some_of(names: Sequence[str], what: str = "image") -> str:
    """How many they are, and what the first are called."""
    shown = ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
    return f"{len(names)} {what}s ({shown})" if len(names) > 1 else f"{what} {shown}"
