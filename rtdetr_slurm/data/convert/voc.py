"""Pascal VOC: an XML file for each image. Standard library only, but for images' sizes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from rtdetr_slurm.data.convert.found import Box, FoundBox, FoundImage, FoundSplit, Report
from rtdetr_slurm.data.convert.images import ImageFiles, upright_size
from rtdetr_slurm.data.layout import files_below, split_name
from rtdetr_slurm.records import read_file


def is_voc(folder: Path) -> bool:
    """Whether a folder has an XML file as VOC's are."""
    first = next(files_below(folder, (".xml",)), None)
    return first is not None and b"<annotation" in read_file(first)[:2000]


def read_voc(source: Path, images: Path, report: Report) -> list[FoundSplit]:
    """The splits of a data set: those of ImageSets/Main, else the folders that say so by their
    names, else all as one.

    Args:
        images: below it are the images.
    """
    files = ImageFiles(images)
    annotated = {path: _read(path, report) for path in files_below(source, (".xml",))}
    from_one = not any(_starts_at_zero(tree) for tree in annotated.values() if tree is not None)
    splits = []
    for name, paths in _splits(source, [*annotated]):
        split = FoundSplit(name)
        for path in paths:
            tree = annotated[path]
            image = tree is not None and _image(tree, path, files, report)
            if image:
                assert tree is not None
                image.boxes = [*_boxes(tree, path, from_one, report)]
                split.images.append(image)
        splits.append(split)
    labels = sorted({box.label for split in splits for i in split.images for box in i.boxes})
    for split in splits:
        split.classes = dict.fromkeys(labels)  # a split may lack one, and all count the same
    return splits


def _read(path: Path, report: Report) -> ElementTree.Element | None:
    """The file's tree. A document type is refused: it could make a small file fill the memory."""
    builder = ElementTree.TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def refuse(*_: object) -> None:
        raise ValueError("it has a document type (DOCTYPE), which no VOC file needs")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(read_file(path), True)
        tree = builder.close()
    except (expat.ExpatError, ValueError) as error:
        report.problem(f"{path}: not XML as VOC has it: {error}")
        return None
    if tree.tag != "annotation":
        report.problem(f"{path}: its top is <{tree.tag}>, not <annotation>")
        return None
    return tree


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
        folders = path.relative_to(source).parts[:-1]
        names = [split for folder in folders if (split := split_name(folder))]
        grouped.setdefault(names[0] if names else "train", []).append(path)
    yield from grouped.items()


def _image(
    tree: ElementTree.Element, path: Path, files: ImageFiles, report: Report
) -> FoundImage | None:
    """The image that a file is about: by the name in it, else by its own."""
    named = (tree.findtext("filename") or "").strip()
    found = (files.find(named, path.parent) if named else []) or files.find(path.stem, path.parent)
    if len(found) > 1:
        report.problem(f"{path}: {named!r} may be {found[0]} or {found[1]}")
        return None
    size = upright_size(found[0]) if found else None
    if size is None:
        report.changed("image that is missing or cannot be read: left out", f"{named} of {path}")
        return None
    if found[0].name != named:
        report.changed("image of another name than its file says: taken", f"{named!r} of {path}")
    stated = [int(_number(tree.findtext(f"size/{side}")) or 0) for side in ("width", "height")]
    if 0 in stated:
        report.changed("image whose size its file does not say: looked up", path)
    elif (*stated,) != size:
        report.changed(
            "image of another size than its file says, so that its boxes are elsewhere: left out",
            f"{found[0]}, {stated[0]} x {stated[1]} in place of {size[0]} x {size[1]}",
        )
        return None
    return FoundImage(found[0], *size)


def _starts_at_zero(tree: ElementTree.Element) -> bool:
    """Whether a coordinate is 0: VOC's own count pixels from 1."""
    edges = (edge for box in tree.iterfind("object/bndbox") for edge in box)
    return any((number := _number(edge.text)) is not None and number < 1 for edge in edges)


def _boxes(
    tree: ElementTree.Element, path: Path, from_one: bool, report: Report
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
        yield FoundBox(label, box)


def _box(entry: ElementTree.Element, from_one: bool, where: str, report: Report) -> Box | None:
    edges = [_number(entry.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")]
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


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
