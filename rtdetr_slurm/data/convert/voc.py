"""Pascal VOC: an XML file for each image. Standard library only, but for images' sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundSplit, Report, name_classes
from rtdetr_slurm.data.convert.images import ImageFiles
from rtdetr_slurm.data.convert.locate import Located, locate
from rtdetr_slurm.data.convert.xml_tree import is_tree, number_in, read_tree
from rtdetr_slurm.data.layout import files_below, split_name, split_of
from rtdetr_slurm.records import read_file


def is_voc(folder: Path) -> bool:
    """Whether a folder has an XML file as VOC's are."""
    first = next(files_below(folder, (".xml",)), None) if folder.is_dir() else None
    return first is not None and is_tree(first, "annotation")


def read_voc(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """The splits of a data set: those of ImageSets/Main, else the folders that say so by their
    names, else all as one.

    Args:
        images: below it are the images.
    """
    files = ImageFiles(images)
    annotated = {
        path: read_tree(path, "annotation", report) for path in files_below(source, (".xml",))
    }
    from_one = not any(_starts_at_zero(tree) for tree in annotated.values() if tree is not None)
    splits = []
    for name, paths in _splits(source, [*annotated]):
        split = FoundSplit(name)
        for path in paths:
            tree = annotated[path]
            located = None if tree is None else _located(tree, path, files, report)
            if tree is not None and located is not None:
                image = located.image
                image.boxes = [*_boxes(tree, path, from_one, located, report)]
                split.images.append(image)
        splits.append(split)
    name_classes(splits)
    return splits


def _splits(source: Path, paths: Sequence[Path]) -> Iterator[tuple[str, list[Path]]]:
    lists = {
        path.stem: read_file(path).decode("utf-8", "replace").split("\n")
        for path in sorted(source.glob("**/ImageSets/Main/*.txt"))
        if path.stem in ("train", "val", "test", "trainval")
    }
    if "train" in lists:
        lists.pop("trainval", None)  # it is train and val
    if lists:
        stems = {path.stem: path for path in paths}
        for name, lines in lists.items():
            wanted = [line.split()[0] for line in lines if line.strip()]
            found = [stems[stem] for stem in wanted if stem in stems]
            yield split_name(name) or name, found
        return
    grouped: dict[str, list[Path]] = {}
    for path in paths:
        grouped.setdefault(split_of(path, source), []).append(path)
    yield from grouped.items()


def _located(
    tree: ElementTree.Element, path: Path, files: ImageFiles, report: Report
) -> Located | None:
    """The image that a file is about: by the name in it, else by its own."""
    named = (tree.findtext("filename") or "").strip()
    sides = (number_in(tree.findtext(f"size/{side}")) or 0 for side in ("width", "height"))
    width, height = map(round, sides)
    names = [name for name in (named, path.stem) if name]
    return locate(names, (width, height), path, files, report)


def _starts_at_zero(tree: ElementTree.Element) -> bool:
    """Whether a coordinate is 0: VOC's own count pixels from 1."""
    edges = (edge for box in tree.iterfind("object/bndbox") for edge in box)
    return any((number := number_in(edge.text)) is not None and number < 1 for edge in edges)


def _boxes(
    tree: ElementTree.Element, path: Path, from_one: bool, located: Located, report: Report
) -> Iterator[FoundBox]:
    for number, entry in enumerate(tree.iterfind("object")):
        where = f"object {number + 1} of {path}"
        label = (entry.findtext("name") or "").strip()
        box = _box(entry, from_one, where, report)
        if not label or box is None:
            report.problem(f"{where} has no {'bndbox of four numbers' if label else 'name'}")
            continue
        if (entry.findtext("difficult") or "").strip() == "1":
            report.changed("object marked as difficult: one like others", where)
        yield FoundBox(label, located.placed(box))


def _box(entry: ElementTree.Element, from_one: bool, where: str, report: Report) -> Box | None:
    edges = [
        number_in(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
    ]
    if None in edges:
        return None
    left, top, right, bottom = (edge for edge in edges if edge is not None)
    if right < left or bottom < top:
        report.changed("box whose sides are swapped: turned round", where)
        left, right, top, bottom = (
            min(left, right),
            max(left, right),
            min(top, bottom),
            max(top, bottom),
        )
    if from_one:
        report.changed("box counted from pixel 1, as VOC does: from 0", where)
        left, top = left - 1, top - 1
    return left, top, right - left, bottom - top
