"""COCO detection annotations: reading them compactly and checking them. Standard library only.

Used on the login node before a job is queued and by the engine before its first step, so that
both say the same about the same file. Category ids are class indices, as in TAO: a head with
`num_classes` logits serves ids 0 .. num_classes-1.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import DataSource
    from rtdetr_slurm.spec.experiment import ExperimentConfig


@dataclass(frozen=True)
class CocoAnnotations:
    """One annotation file. Columns are typed arrays: compact, and numpy can look at them in place.

    Boxes are in pixels of the upright image, [x, y, width, height] with the origin top left.

    Attributes:
        path: the file they came from.
        categories: category id to name, in the file's order.
        image_ids, file_names: one entry per image, in the file's order.
        image_index: one entry per annotation: the position of its image in `image_ids`.
        category_ids, boxes (four numbers each), areas, crowds: one entry per annotation.
    """

    path: Path
    categories: dict[int, str]
    image_ids: array[int] = field(default_factory=lambda: array("q"))
    file_names: list[str] = field(default_factory=list)
    image_index: array[int] = field(default_factory=lambda: array("q"))
    category_ids: array[int] = field(default_factory=lambda: array("q"))
    boxes: array[float] = field(default_factory=lambda: array("d"))
    areas: array[float] = field(default_factory=lambda: array("d"))
    crowds: array[int] = field(default_factory=lambda: array("b"))

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_boxes(self) -> int:
        return len(self.category_ids)


@dataclass(frozen=True)
class Source:
    """A folder of images and the annotations that name them."""

    image_dir: Path
    annotations: CocoAnnotations


def read_annotations(path: Path) -> CocoAnnotations:
    """Read one COCO detection file.

    A missing `area` becomes width * height (as pycocotools defines a detection's area), a missing
    `iscrowd` becomes 0. Segmentations, key points and all else are left out.

    Raises:
        RequestError: the file cannot be read, is not JSON, or is not COCO detection; the message
            names the file and the entry.
    """
    content = _load_json(path)
    if not isinstance(content, dict):
        _not_coco(path, f"its top level is a {type(content).__name__}, not an object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            found = sorted(map(str, content))[:8]
            _not_coco(path, f"it has no list '{key}' (top-level keys found: {found})")
    annotations = CocoAnnotations(path, _read_categories(path, content["categories"]))
    position = _read_images(annotations, content["images"])
    _read_boxes(annotations, content["annotations"], position)
    return annotations


def check_sources(experiment: ExperimentConfig, action: str) -> dict[str, list[Source]]:
    """Read and check the data of `action`: folders, files, categories against `num_classes`.

    Returns:
        Kind, as the action table names it (`train` for dataset.train_data_sources), to the sources
        that the spec gives; nothing for images without annotations.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
    """
    dataset = experiment.dataset
    sources: dict[str, list[Source]] = {}
    for kind in get_action(action).reads:
        given = getattr(dataset, f"{kind}_data_sources") or []
        entries = given if isinstance(given, list) else [given]
        if kind != "infer":  # the one kind without annotations
            sources[kind] = [_check_source(kind, source) for source in entries]
    for kind in sources.keys() & {"train", "test"}:
        if not sources[kind]:
            raise RequestError(f"dataset.{kind}_data_sources is not set, and {action} needs it")
    _check_not_empty(sources.get("train"))
    for source in (*sources.get("val", ()), *sources.get("test", ())):
        check_eval_class_ids(source.annotations, dataset.eval_class_ids)
    read = [source.annotations for group in sources.values() for source in group]
    class_names(read, dataset.num_classes)
    return sources


def class_names(sources: Sequence[CocoAnnotations], num_classes: int) -> dict[int, str]:
    """The classes of several sources together, id to name, sorted by id.

    Raises:
        RequestError: an id does not fit into `num_classes`, or two sources name it differently.
    """
    names: dict[int, str] = {}
    origin: dict[int, Path] = {}
    for source in sources:
        for category, name in source.categories.items():
            if category in names and names[category] != name:
                raise RequestError(
                    f"category id {category} is '{names[category]}' in {origin[category]} and "
                    f"'{name}' in {source.path}: the same id must mean the same class everywhere"
                )
            names.setdefault(category, name)
            origin.setdefault(category, source.path)
    if names and max(names) >= num_classes:
        _too_few_classes(names, origin[max(names)], num_classes)
    return dict(sorted(names.items()))


def check_eval_class_ids(annotations: CocoAnnotations, class_ids: Sequence[int] | None) -> None:
    """Refuse `dataset.eval_class_ids` that the annotation file does not know."""
    unknown = sorted(set(class_ids or ()) - set(annotations.categories))
    if unknown:
        raise RequestError(
            f"dataset.eval_class_ids holds {unknown}, but {annotations.path} has the categories "
            f"{_describe(annotations.categories)}"
        )


def _load_json(path: Path) -> Any:
    try:
        with path.open(encoding="utf-8") as stream:
            return json.load(stream)
    except FileNotFoundError:
        raise RequestError(f"annotation file {path} does not exist") from None
    except OSError as error:
        raise RequestError(f"annotation file {path} cannot be read: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise RequestError(
            f"annotation file {path} is not JSON: {error.msg} at line {error.lineno} "
            f"column {error.colno}"
        ) from None
    except UnicodeDecodeError:
        raise RequestError(f"annotation file {path} is not JSON: it is not UTF-8 text") from None


def _read_categories(path: Path, entries: list[Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries):
        where = f"categories[{number}]"
        category = _integer(path, entry, "id", where)
        name = entry.get("name")
        if not isinstance(name, str):
            _not_coco(path, f"{where} has no text 'name'")
        if category < 0:
            _not_coco(path, f"{where} has the negative id {category}")
        if category in categories:
            _not_coco(path, f"category id {category} is given twice")
        categories[category] = name
    if not categories:
        _not_coco(path, "its list 'categories' is empty")
    return categories


def _read_images(annotations: CocoAnnotations, entries: list[Any]) -> dict[int, int]:
    """Fill the image columns; returns image id to position."""
    path = annotations.path
    position: dict[int, int] = {}
    for number, entry in enumerate(entries):
        where = f"images[{number}]"
        image_id = _integer(path, entry, "id", where)
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            _not_coco(path, f"{where} (id {image_id}) has no 'file_name'")
        if image_id in position:
            _not_coco(path, f"image id {image_id} is given twice")
        position[image_id] = number
        annotations.image_ids.append(image_id)
        annotations.file_names.append(name)
    return position


def _read_boxes(
    annotations: CocoAnnotations, entries: list[Any], position: Mapping[int, int]
) -> None:
    path = annotations.path
    for number, entry in enumerate(entries):
        where = f"annotations[{number}]"
        image_id = _integer(path, entry, "image_id", where)
        category = _integer(path, entry, "category_id", where)
        if image_id not in position:
            _not_coco(path, f"{where} belongs to image id {image_id}, which 'images' does not have")
        if category not in annotations.categories:
            _not_coco(path, f"{where} has category id {category}, which 'categories' does not have")
        box = _box(path, entry, where)
        area = entry.get("area")
        annotations.image_index.append(position[image_id])
        annotations.category_ids.append(category)
        annotations.boxes.extend(box)
        annotations.areas.append(box[2] * box[3] if area is None else _number(path, area, where))
        annotations.crowds.append(1 if entry.get("iscrowd") else 0)


def _box(path: Path, entry: Mapping[str, Any], where: str) -> list[float]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        _not_coco(path, f"{where} has no 'bbox' of four numbers [x, y, width, height]")
    return [_number(path, value, where) for value in box]


def _integer(path: Path, entry: Any, key: str, where: str) -> int:
    if not isinstance(entry, dict):
        _not_coco(path, f"{where} is not an object")
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        _not_coco(path, f"{where} has no whole number '{key}' (found {value!r})")
    return value


def _number(path: Path, value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        _not_coco(path, f"{where} holds {value!r} where a finite number is expected")
    return float(value)


def _not_coco(path: Path, problem: str) -> NoReturn:
    raise RequestError(f"annotation file {path} is not a COCO detection file: {problem}")


def _check_source(kind: str, source: DataSource) -> Source:
    """Read one source of `dataset.<kind>_data_sources` and look for its folder and first image."""
    setting = f"dataset.{kind}_data_sources"
    folder = Path(source.image_dir)
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise RequestError(f"image folder {folder} ({setting}, image_dir) {problem}")
    annotations = read_annotations(Path(source.json_file))
    if annotations.file_names and not (folder / annotations.file_names[0]).is_file():
        raise RequestError(
            f"image folder {folder} ({setting}, image_dir) has no file "
            f"'{annotations.file_names[0]}', the first that {annotations.path} names; "
            "image_dir and the file names in the annotations must join to the image's path"
        )
    if kind != "train" and not annotations.num_images:
        raise RequestError(f"{annotations.path} ({setting}) names no images: nothing to score")
    return Source(folder, annotations)


def _check_not_empty(training: Sequence[Source] | None) -> None:
    if training is None:
        return
    files = ", ".join(str(source.annotations.path) for source in training)
    if not sum(source.annotations.num_images for source in training):
        raise RequestError(f"the training set is empty: {files} names no images")
    if not sum(source.annotations.num_boxes for source in training):
        raise RequestError(f"the training set has no boxes: {files} holds no annotations")


def _too_few_classes(names: Mapping[int, str], path: Path, num_classes: int) -> NoReturn:
    largest = max(names)
    advice = f"set dataset.num_classes to {largest + 1}"
    if min(names) > 0:
        advice += (
            f" and, so that only real classes are scored, dataset.eval_class_ids to {sorted(names)}"
            if len(names) <= 20
            else ""
        )
    raise RequestError(
        f"{path} has category id {largest} ('{names[largest]}'), but dataset.num_classes is "
        f"{num_classes}. Category ids are used as class indices, so num_classes must be at least "
        f"the largest id + 1: {advice}"
    )


def _describe(categories: Mapping[int, str], limit: int = 12) -> str:
    shown = [f"{category} ({name})" for category, name in sorted(categories.items())[:limit]]
    return ", ".join(shown) + (", ..." if len(categories) > limit else "")
