"""Where a data set has its splits: annotation files of COCO's form, and the images of each.

As this project, MS COCO, Roboflow and CVAT lay it out. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rtdetr_slurm.data.check_images import spread
from rtdetr_slurm.data.coco import CocoAnnotations, read_annotations
from rtdetr_slurm.data.image_files import missing_files
from rtdetr_slurm.data.image_sources import shown_files
from rtdetr_slurm.data.json_stream import NotJson, stream_object
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.addresses import is_packed
from rtdetr_slurm.spec.datasets import IMAGES

_SPLITS = ("train", "val", "test")
_PARTS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class SplitFiles:
    """Where a split is.

    Attributes:
        annotations: the annotation file, to read.
        json_file, image_dir: what a spec names: that file, and the folder or archive that the
            names in it are below, by path or address.
    """

    annotations: Path
    json_file: str
    image_dir: str


def split_name(text: str) -> str | None:
    """What a folder or file is for, by its name (trainval, val2017, valid, …); None: it does not
    say."""
    return next((name for name in _SPLITS if name in text.lower()), None)


def split_of(path: Path, source: Path) -> str:
    """The split that a file below `source` is in, by the names of its folders; else train."""
    folders = path.relative_to(source).parts[:-1]
    return next(filter(None, map(split_name, folders)), "train")


def files_below(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files whose names end so, in whatever case, sorted; nothing hidden.

    Raises:
        OSError: a folder cannot be listed.
    """
    return (path for path in shown_files(folder) if path.name.lower().endswith(suffixes))


def annotation_files(source: Path) -> dict[str, Path]:
    """The files of COCO's form that `source` is, or has below it, by the split that each is for;
    a file that is alone and does not say is for training.

    Raises:
        RequestError: two files are for the same split.
    """
    below = [source] if source.is_file() else files_below(source, (".json",))
    paths = [path for path in below if _is_coco(path)]
    splits: dict[str, Path] = {}
    for path in paths:
        inside = path.relative_to(source) if source.is_dir() else Path(path.name)
        own_name = "train" if len(paths) == 1 else path.stem
        name = split_name(path.name) or split_name(str(inside)) or own_name
        if name in splits:
            raise RequestError(
                f"{splits[name]} and {path} are both of split {name}: name one of them, or move "
                "the other away"
            )
        splits[name] = path
    return splits


def find_splits(
    folder: Path, read: Callable[[Path], CocoAnnotations] = read_annotations
) -> dict[str, SplitFiles]:
    """The splits of a data set in COCO's form, with their images.

    Args:
        read: reads an annotation file.

    Raises:
        RequestError: there is no annotation file, two are for the same split, or the images that
            one names are nowhere.
    """
    return {
        name: SplitFiles(path, str(path), str(_images_of(name, read(path), folder)))
        for name, path in annotation_files(folder).items()
    }


def _is_coco(path: Path) -> bool:
    try:
        return any(key in _PARTS for key, _ in stream_object(path))
    except (NotJson, UnicodeDecodeError):
        return False


def _images_of(split: str, annotations: CocoAnnotations, folder: Path) -> Path:
    names, json_file = spread(annotations.file_names), annotations.path
    for place in _image_places(split, json_file, folder):
        if is_packed(place.name) or (names and not missing_files(place, names)):
            return place
    raise RequestError(
        f"{json_file}: its images, such as {next(iter(names), '')!r}, are in no folder of {folder} "
        "where images are looked for (beside it, images/, images/SPLIT, SPLIT), nor is there an "
        "archive of them. `rtdetr-slurm data convert` finds images by their names wherever they are"
    )


def _image_places(split: str, json_file: Path, folder: Path) -> Iterator[Path]:
    """Folders and archives that may hold the images, those that are meant by their names first."""
    beside = json_file.parent
    yield beside / IMAGES
    yield from (path for path in _listed(beside) if path.name.startswith(f"{IMAGES}."))
    yield beside
    for within in dict.fromkeys((folder / IMAGES, folder, beside.parent)):
        yield from (path for path in _listed(within) if split_name(path.name) == split)
    yield folder / IMAGES
    yield folder


def _listed(folder: Path) -> list[Path]:
    """Folders and archives in a folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() or is_packed(path.name))
