"""The data of an action, checked before a job is queued, and again before the first step.

What makes a run worthless is refused; what only costs something becomes a note. Standard library
only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import DEPLOY, EngineName, get_action
from rtdetr_slurm.data.archives import is_archive
from rtdetr_slurm.data.calibration import calibration_sources
from rtdetr_slurm.data.check_boxes import check_boxes
from rtdetr_slurm.data.check_images import check_images
from rtdetr_slurm.data.classes import check_eval_class_ids, class_names, note_on_idle_classes
from rtdetr_slurm.data.coco import CocoAnnotations, Source, read_annotations
from rtdetr_slurm.data.image_sources import check_apart, find_images
from rtdetr_slurm.data.mscoco import without_gaps
from rtdetr_slurm.errors import RequestError

if TYPE_CHECKING:
    from rtdetr_slurm.spec.dataset import DatasetConfig, DataSource
    from rtdetr_slurm.spec.experiment import ExperimentConfig

WITHOUT_ANNOTATIONS = ("infer", "calibration")
"""Kinds of sources that have names of images alone; those of `calibration` may have more."""


@dataclass(frozen=True)
class CheckedData:
    """What an action reads.

    Attributes:
        sources: kind, as the action table names it (`train` for dataset.train_data_sources), to the
            sources that the spec gives; those of `infer` have names of images alone.
        notes: lines for the user about what is not as it should be, and does no great harm.
    """

    sources: dict[str, list[Source]]
    notes: tuple[str, ...]


def check_sources(
    experiment: ExperimentConfig,
    action: str,
    *,
    engine: EngineName = "rtdetr",
    skip_bad_images: bool = False,
    kinds: Collection[str] | None = None,
    read: Callable[[Path], CocoAnnotations] = read_annotations,
) -> CheckedData:
    """Read and check the data of `action`: folders, classes, images, boxes.

    Args:
        engine: whose image the action runs in: TAO's counts all classes in its scores, but for
            TensorRT engines, and reads HDF5 files.
        skip_bad_images: images that are missing or not as annotated are left out, and noted.
        kinds: of sources, as the action table names them; None: all of the action's.
        read: reads an annotation file; whoever checks several actions remembers what it has read.

    Raises:
        RequestError: naming the source and the spec field, and what would be right.
        ActionError: the memory does not suffice for the annotations.
    """
    dataset = experiment.dataset
    sources: dict[str, list[Source]] = {}
    for kind, given in given_sources(experiment, action).items():
        if kinds is not None and kind not in kinds:
            continue
        sources[kind] = [_open(kind, source, read, dataset) for source in given]
        if kind in ("train", "test") and kind in get_action(action).reads and not given:
            raise RequestError(f"dataset.{kind}_data_sources is not set, and {action} needs it")
    every = [(kind, source) for kind, group in sources.items() for source in group]
    names = class_names([source.annotations for _, source in every], dataset.num_classes)
    notes: list[str] = []
    if get_action(action).trains:
        notes += note_on_idle_classes(names, dataset.num_classes)
    unusable: list[str] = []
    for kind, source in every:
        if kind in ("val", "test") and (engine == "rtdetr" or get_action(action).program == DEPLOY):
            notes += check_eval_class_ids(source.annotations, dataset)
        notes += check_images(
            source.image_dir, source.annotations, kind, skip_bad_images=skip_bad_images
        )
        if kind in ("val", "test") or (kind == "train" and get_action(action).trains):
            found, why_unusable = check_boxes(source.annotations, kind, experiment)
            notes += found
            unusable += filter(None, [why_unusable])
    if get_action(action).trains:
        _check_not_empty(sources.get("train"), unusable)
    if "infer" in get_action(action).reads and dataset.infer_data_sources is not None:
        results = experiment.inference.results_dir or experiment.results_dir
        check_apart(dataset.infer_data_sources, results)
        sources["infer"], found = find_images(dataset.infer_data_sources, engine)
        notes += found
    if "calibration" in get_action(action).may_read and (kinds is None or "calibration" in kinds):
        annotated = sources.get("quant_calibration", [])
        sources["calibration"], found = calibration_sources(experiment, annotated)
        notes += found
    return CheckedData(sources, (*notes, *unusable))


def given_sources(experiment: ExperimentConfig, action: str) -> dict[str, list[DataSource]]:
    """The annotated sources that `action` opens, by kind, as the spec gives them."""
    found = {}
    row = get_action(action)
    for kind in (*row.reads, *row.may_read):
        if kind not in WITHOUT_ANNOTATIONS:
            given = getattr(experiment.dataset, f"{kind}_data_sources") or []
            found[kind] = given if isinstance(given, list) else [given]
    if not row.trains and "train" in found:  # images to calibrate on, where none are given
        found["train"] = [] if found.get("quant_calibration") else found["train"][:1]
    return found


def check_folders(sources: Mapping[str, Sequence[Source]]) -> None:
    """Refuse image folders, and archives of images, that this machine does not have.

    Raises:
        RequestError: naming the folder.
    """
    for kind, group in sources.items():
        for source in group:
            if not (is_archive(source.image_dir) and source.image_dir.is_file()):
                _check_folder(source.image_dir, kind)


def check_batch_fits(images: int, batch_size: int, ranks: int) -> None:
    """Refuse a training set that does not fill one batch on every rank.

    Raises:
        RequestError: with the numbers.
    """
    if images < batch_size * ranks:
        raise RequestError(
            f"the training set has {images} images, fewer than one batch on every rank: "
            f"dataset.batch_size {batch_size} x {ranks} ranks = {batch_size * ranks}. Lower the "
            "batch size or use fewer GPUs"
        )


def _open(
    kind: str,
    source: DataSource,
    read: Callable[[Path], CocoAnnotations],
    dataset: DatasetConfig,
) -> Source:
    _check_folder(Path(source.image_dir), kind)
    annotations = read(Path(source.json_file))
    if dataset.remap_mscoco_category:
        annotations = without_gaps(annotations)
    if kind != "train" and not annotations.num_images:
        raise RequestError(
            f"{annotations.path} (dataset.{kind}_data_sources) names no images: nothing to score"
        )
    return Source(Path(source.image_dir), annotations)


def _check_folder(folder: Path, kind: str) -> None:
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        if folder.is_file() and is_archive(folder):
            problem += "; annotated images are read from a folder: unpack the archive"
        raise RequestError(
            f"image folder {folder} (dataset.{kind}_data_sources, image_dir) {problem}"
        )


def _check_not_empty(training: Sequence[Source] | None, unusable: Sequence[str]) -> None:
    """Refuse a training set from which nothing can be learned.

    Args:
        unusable: why none of their boxes can be used, of the sources of which that is so.
    """
    if training is None:
        return
    files = ", ".join(str(source.annotations.path) for source in training)
    if not sum(source.annotations.num_images for source in training):
        raise RequestError(f"the training set is empty: {files} names no images")
    with_boxes = sum(source.annotations.num_boxes > 0 for source in training)
    if not with_boxes:
        raise RequestError(f"the training set has no boxes: {files} holds no annotations")
    if len(unusable) == with_boxes:
        raise RequestError("; ".join(unusable))
