"""YOLO: a text file of shares of the image beside each image, and a YAML file of class names.

Darknet's form and those of Ultralytics, Roboflow and Label Studio, which differ in where what is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rtdetr_slurm.data.convert.found import FoundBox, FoundImage, FoundSplit, Report
from rtdetr_slurm.data.convert.images import images_below, upright_size
from rtdetr_slurm.data.layout import split_name
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.records import read_file
from rtdetr_slurm.yaml_source import load_yaml

_CONFIGS = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAME_LISTS = ("classes.txt", "obj.names", "labels/classes.txt")
_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def is_yolo(folder: Path) -> bool:
    """Whether a folder has YOLO's files: a YAML file of classes, or labels beside images."""
    if not folder.is_dir():
        return folder.suffix.lower() in (".yaml", ".yml")
    if _config_of(folder) is not None:
        return True
    return any((folder / name).is_file() for name in _NAME_LISTS) or (folder / "labels").is_dir()


def read_yolo(source: Path, report: Report) -> list[FoundSplit]:
    """The splits of a data set: `source` is its folder, or its YAML file.

    Raises:
        RequestError: the YAML file is none, or names what is not there.
    """
    folder = source if source.is_dir() else source.parent
    config = _config_of(source) if source.is_dir() else source
    names: dict[int, str] = {}
    places: dict[str, list[Path]] = {}
    if config is not None:
        data = load_yaml(config).data
        names = _names_in(data.get("names"), config)
        for key, split in _SPLIT_KEYS.items():
            if given := data.get(key):
                entries = given if isinstance(given, list) else [given]
                base = folder / str(data.get("path") or "")
                found = [_place(str(one), base, folder, config) for one in entries]
                places.setdefault(split, []).extend(found)
    names = names or _listed_names(folder)
    splits = []
    for name, found in (places or _usual_places(folder)).items():
        images = dict.fromkeys(image for place in found for image in _images_of(place))
        splits.append(_read_split(name, [*images], names, report))
    return splits


def _config_of(folder: Path) -> Path | None:
    """The YAML file of class names."""
    usual = [folder / name for name in _CONFIGS if (folder / name).is_file()]
    others = [path for suffix in ("yaml", "yml") for path in sorted(folder.glob(f"*.{suffix}"))]
    for path in usual or others:
        try:
            if "names" in load_yaml(path).data:
                return path
        except RequestError:
            continue
    return None


def _names_in(given: object, config: Path) -> dict[int, str]:
    if isinstance(given, list):
        return {number: str(name).strip() for number, name in enumerate(given)}
    if isinstance(given, Mapping) and all(str(number).isdecimal() for number in given):
        return {int(number): str(name).strip() for number, name in given.items()}
    raise RequestError(
        f"{config}: 'names' is neither a list of class names nor one of `number: name` lines"
    )


def _listed_names(folder: Path) -> dict[int, str]:
    for name in _NAME_LISTS:
        if (folder / name).is_file():
            lines = read_file(folder / name).decode("utf-8-sig", "replace").split("\n")
            found = [line.strip() for line in lines]
            return {number: line for number, line in enumerate(found) if line}
    return {}


def _place(entry: str, base: Path, folder: Path, config: Path) -> Path:
    """A folder or list of images that the YAML file names; Roboflow's begin with ../ too often."""
    inside = entry
    while inside.startswith("../"):
        inside = inside.removeprefix("../")
    for path in (base / entry, folder / entry, folder / inside):
        if path.exists():
            return path
    raise RequestError(f"{config}: it names {entry}, which is neither in {base} nor in {folder}")


def _usual_places(folder: Path) -> dict[str, list[Path]]:
    """Where a data set without a YAML file has its splits: images/train, train/images, or train."""
    within = folder / "images" if (folder / "images").is_dir() else folder
    places: dict[str, list[Path]] = {}
    for path in sorted(within.iterdir()):
        if path.is_dir() and (name := split_name(path.name)):
            places.setdefault(name, []).append(path)
    return places or {"train": [within]}


def _images_of(place: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from images_below(place)
        return
    lines = read_file(place).decode("utf-8-sig", "replace").split("\n")
    for line in filter(None, map(str.strip, lines)):
        beside = place.parent / line
        yield beside if beside.exists() else place.parent / line.removeprefix("./")


def _labels_of(image: Path) -> Path | None:
    """The file of an image's labels: in `labels` in place of `images`, or beside it."""
    parts = [*image.with_suffix(".txt").parts]
    for index in range(len(parts) - 2, 0, -1):
        if parts[index] == "images":
            elsewhere = Path(*parts[:index], "labels", *parts[index + 1 :])
            if elsewhere.is_file():
                return elsewhere
            break
    beside = image.with_suffix(".txt")
    return beside if beside.is_file() else None


def _read_split(
    name: str, images: Sequence[Path], names: Mapping[int, str], report: Report
) -> FoundSplit:
    split = FoundSplit(name, classes={text: number for number, text in names.items()})
    if len(split.classes) < len(names):
        report.problem("two classes have one name: give each a name of its own")
    with_labels = 0
    for path in images:
        size = upright_size(path) if path.is_file() else None
        if size is None:
            report.changed("image that is missing or cannot be read: left out", path)
            continue
        image = FoundImage(path, *size)
        labels = _labels_of(path)
        if labels is None:
            report.changed("image without a file of labels: it has no objects", path)
        else:
            with_labels += 1
            image.boxes = [*_read_labels(labels, size, names, split, report)]
        split.images.append(image)
    if split.images and not with_labels:
        report.problem(
            f"no image of split {name} has a file of labels, such as {images[0]}: they belong in a "
            "folder labels in place of images, or beside the images"
        )
    return split


def _read_labels(
    path: Path,
    size: tuple[int, int],
    names: Mapping[int, str],
    split: FoundSplit,
    report: Report,
) -> Iterator[FoundBox]:
    lines = read_file(path).decode("utf-8-sig", "replace").split("\n")
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        where = f"{path}:{number}"
        numbers = _numbers(words)
        if numbers is None:
            report.problem(f"{where}: not a class index and shares of the image: {line.strip()!r}")
            continue
        label = int(numbers[0])
        shares = _shares(numbers[1:], where, report)
        if shares is None:
            continue
        if names and label not in names:
            report.problem(f"{where}: class {label}, and the classes are 0..{max(names)}")
            continue
        if not names:
            report.changed("box of a class that nothing names: named by its number", where)
            split.classes.setdefault(f"class_{label}", label)
        width, height = size
        x, y, w, h = shares
        box = (x * width, y * height, w * width, h * height)
        yield FoundBox(names.get(label, f"class_{label}"), box)


def _numbers(words: Sequence[str]) -> list[float] | None:
    """The numbers of a line, of which the first is an index; None: they are none."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return None
    finite = all(map(math.isfinite, numbers))
    return numbers if finite and numbers[0] >= 0 and numbers[0].is_integer() else None


def _shares(
    numbers: Sequence[float], where: str, report: Report
) -> tuple[float, float, float, float] | None:
    """Left, top, width, height as shares of the image."""
    if max(numbers, default=0) > 2 or min(numbers, default=0) < -1:
        report.problem(
            f"{where}: not shares of the image's width and height, but {max(numbers):g}, as pixels "
            "are"
        )
        return None
    if len(numbers) in (4, 5):
        if len(numbers) == 5:
            report.changed("label with a confidence, as of a detector: left out of it", where)
        x, y, w, h = numbers[:4]
        return x - w / 2, y - h / 2, w, h
    if len(numbers) >= 6 and len(numbers) % 2 == 0:
        report.changed("outline (segmentation or turned box): the box around it", where)
        xs, ys = numbers[::2], numbers[1::2]
        return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)
    report.problem(f"{where}: {len(numbers) + 1} numbers are neither a box nor an outline")
    return None
