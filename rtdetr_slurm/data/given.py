"""The annotated sources that a spec gives an action, read as far as they can be. Standard library
only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import get_action
from rtdetr_slurm.data.coco import CocoAnnotations, Source
from rtdetr_slurm.data.findings import FieldPath, Findings
from rtdetr_slurm.data.mscoco import without_gaps
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import local_path
from rtdetr_slurm.spec.addresses import is_packed

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import DataSource
    from rtdetr_slurm.spec.experiment import ExperimentConfig

WITHOUT_ANNOTATIONS = ("infer", "calibration")
"""Kinds of sources that have names of images alone; those of `calibration` may have more."""


@dataclass(frozen=True)
class Given:
    """A source as the spec gives it.

    Attributes:
        kind: as the action table names it: `train` is dataset.train_data_sources.
        at: its place in the spec.
    """

    kind: str
    at: FieldPath
    source: DataSource


@dataclass(frozen=True)
class Opened:
    """A source of which at least the annotations could be read."""

    kind: str
    at: FieldPath
    source: Source


def given_sources(experiment: ExperimentConfig, action: str) -> dict[str, list[Given]]:
    """The annotated sources that `action` opens, by kind."""
    found: dict[str, list[Given]] = {}
    row = get_action(action)
    for kind in (*row.reads, *row.may_read):
        if kind not in WITHOUT_ANNOTATIONS:
            name = f"{kind}_data_sources"
            value = getattr(experiment.dataset, name) or []
            found[kind] = (
                [Given(kind, ("dataset", name, index), one) for index, one in enumerate(value)]
                if isinstance(value, list)
                else [Given(kind, ("dataset", name), value)]
            )
    if not row.trains and "train" in found:  # images to calibrate on, where none are given
        found["train"] = [] if found.get("quant_calibration") else found["train"][:1]
    return found


def open_given(
    given: Given,
    read: Callable[[Path], CocoAnnotations],
    found: Findings,
    *,
    remap: bool,
    staged_later: bool,
) -> Opened | None:
    """Look for a source's images, and read its annotations.

    Args:
        remap: whether its ids are MS COCO's own.
        staged_later: whether both may be elsewhere, and its images in an archive.

    Returns:
        The source, without its folder where that is not there; None: the annotations cannot be
        read.
    """
    source, folder = given.source, None
    json_file = local_path(source.json_file)
    with found.about((*given.at, "image_dir")):
        folder = _image_folder(source.image_dir, given.kind, staged_later=staged_later)
    if json_file is None and staged_later:
        return None
    with found.about((*given.at, "json_file")):
        annotations = read(json_file or Path(source.json_file))
        annotations = without_gaps(annotations) if remap else annotations
        if given.kind != "train" and not annotations.num_images:
            raise RequestError(
                f"{annotations.path} (dataset.{given.kind}_data_sources) names no images: nothing "
                "to score"
            )
        return Opened(given.kind, given.at, Source(folder, annotations))
    return None


def check_folder(folder: Path, kind: str) -> None:
    """Refuse what is no folder of images.

    Raises:
        RequestError: naming it and the field.
    """
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        if folder.is_file() and is_packed(folder.name):
            problem += "; annotated images are read from a folder: unpack the archive"
        raise RequestError(
            f"image folder {folder} (dataset.{kind}_data_sources, image_dir) {problem}"
        )


def _image_folder(image_dir: str, kind: str, *, staged_later: bool) -> Path | None:
    folder = local_path(image_dir)
    if staged_later and (folder is None or (is_packed(image_dir) and folder.is_file())):
        return None
    check_folder(folder or Path(image_dir), kind)
    return folder
