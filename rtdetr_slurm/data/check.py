"""The data of an action, checked before a job is queued, and again before the first step.

What makes a run worthless is refused, all of it at once; what only costs something is a warning.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rtdetr_slurm.actions import DEPLOY, EngineName, get_action
from rtdetr_slurm.data.archives import is_archive
from rtdetr_slurm.data.calibration import CALIBRATION_FIELD, calibration_sources
from rtdetr_slurm.data.check_boxes import check_boxes
from rtdetr_slurm.data.check_classes import check_classes
from rtdetr_slurm.data.check_images import LookIntoImages, check_images, look_into_headers
from rtdetr_slurm.data.check_sampling import check_sampling
from rtdetr_slurm.data.classes import check_same_ids, find_classes
from rtdetr_slurm.data.classmap import CLASSMAP_FIELD, inference_classes
from rtdetr_slurm.data.coco import CocoAnnotations, Source, read_annotations
from rtdetr_slurm.data.findings import FieldPath, Findings
from rtdetr_slurm.data.given import Opened, check_folder, given_sources, open_given
from rtdetr_slurm.data.image_sources import check_apart, find_images
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import is_remote
from rtdetr_slurm.spec.addresses import is_packed

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig

INFER_FIELD: FieldPath = ("dataset", "infer_data_sources", "image_dir")


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


@dataclass(frozen=True)
class Checks:
    """How the data of an action are looked at.

    Attributes:
        engine: whose image the action runs in: TAO's counts all classes in its scores, but for
            TensorRT engines, and reads HDF5 files.
        skip_bad_images: images that are missing or not as annotated are left out, and noted.
        kinds: of sources, as the action table names them; None: all of the action's.
        ranks: that a training is shared by; None: that is not known.
        known: classes of the weights that are used, id to name, empty where they do not say; None:
            nobody knows yet.
        staged_later: images and annotations may be at an address, and images in an archive, that
            are staged before the action begins: a source is checked as far as it is here.
        read: reads an annotation file; whoever checks several actions remembers what it has read.
        look: looks into image files.
    """

    engine: EngineName = "rtdetr"
    skip_bad_images: bool = False
    kinds: Collection[str] | None = None
    ranks: int | None = None
    known: Mapping[int, str] | None = None
    staged_later: bool = False
    read: Callable[[Path], CocoAnnotations] = read_annotations
    look: LookIntoImages = look_into_headers


def check_sources(
    experiment: ExperimentConfig, action: str, checks: Checks | None = None
) -> CheckedData:
    """Read and check the data of `action`: folders, classes, images, boxes.

    Raises:
        BadData: (a RequestError) all that is wrong, with sources and spec fields, and what would be
            right.
        ActionError: the memory does not suffice for the annotations.
    """
    found = Findings()
    sources = inspect_sources(experiment, action, found, checks or Checks())
    found.raise_errors()
    return CheckedData(sources, tuple(finding.message for finding in found.warnings))


def inspect_sources(
    experiment: ExperimentConfig, action: str, found: Findings, checks: Checks
) -> dict[str, list[Source]]:
    """`check_sources` that goes on with whatever can be checked, and puts what is wrong into
    `found`.

    Returns:
        Those of the sources whose annotations can be read.
    """
    row, dataset = get_action(action), experiment.dataset
    asked = given_sources(experiment, action)
    if checks.kinds is not None:
        asked = {kind: given for kind, given in asked.items() if kind in checks.kinds}
    opened: dict[str, list[Opened]] = {}
    remap, later = dataset.remap_mscoco_category, checks.staged_later
    for kind, given in asked.items():
        if kind in ("train", "test") and kind in row.reads and not given:
            name = f"{kind}_data_sources"
            found.error(("dataset", name), f"dataset.{name} is not set, and {action} needs it")
        opened[kind] = [
            one
            for source in given
            if (one := open_given(source, checks.read, found, remap=remap, staged_later=later))
        ]
    every = [one for group in opened.values() for one in group]
    _check_ids(every, experiment, action, found, checks)
    unusable = [*_check_each(every, experiment, action, found, checks)]
    sources = {kind: [one.source for one in group] for kind, group in opened.items()}
    if row.trains and "train" in asked and len(opened["train"]) == len(asked["train"]) > 0:
        _check_training_set(sources["train"], unusable, experiment, found, checks)
    for at, why in unusable:
        found.warn(at, why)
    if "infer" in row.reads and dataset.infer_data_sources is not None:
        sources["infer"] = _infer_sources(experiment, found, checks)
    if "calibration" in row.may_read and (checks.kinds is None or "calibration" in checks.kinds):
        sources["calibration"] = []
        with found.about(CALIBRATION_FIELD):
            annotated = sources.get("quant_calibration", [])
            sources["calibration"], notes = calibration_sources(experiment, annotated)
            found.warn(CALIBRATION_FIELD, *notes)
    return sources


def check_folders(folders: Mapping[str, Sequence[Path]]) -> None:
    """Refuse image folders, and archives of images, that this machine does not have.

    Raises:
        RequestError: naming the folder.
    """
    for kind, group in folders.items():
        for folder in group:
            if not (is_archive(folder) and folder.is_file()):
                check_folder(folder, kind)


def check_batch_fits(images: int, batch_size: int, ranks: int, accumulate: int = 1) -> None:
    """Refuse a training set that does not fill the batches of one step on every rank.

    Raises:
        RequestError: with the numbers.
    """
    needed = batch_size * accumulate * ranks
    if images < needed:
        times = f"engine.accumulate {accumulate} x " if accumulate > 1 else ""
        raise RequestError(
            f"the training set has {images} images, fewer than one batch on every rank: "
            f"dataset.batch_size {batch_size} x {times}{ranks} ranks = {needed}. Lower the "
            "batch size or use fewer GPUs"
        )


def _check_ids(
    opened: Sequence[Opened],
    experiment: ExperimentConfig,
    action: str,
    found: Findings,
    checks: Checks,
) -> None:
    """Category ids against those of other sources, of the spec and of the weights."""
    row = get_action(action)
    counts = checks.engine == "rtdetr" or row.program == DEPLOY
    check_classes(
        [(one.at, one.source.annotations) for one in opened],
        experiment.dataset,
        found,
        trains=row.trains and not experiment.train.resume_training_checkpoint_path,
        scored=[one.source.annotations for one in opened if counts and one.kind in ("val", "test")],
    )
    for one in opened:
        if one.kind == "test" and "test" in row.reads:
            annotations = one.source.annotations
            with found.about((*one.at, "json_file")):
                names, _ = find_classes([annotations])
                check_same_ids(checks.known or {}, names, annotations.path)


def _check_each(
    opened: Sequence[Opened],
    experiment: ExperimentConfig,
    action: str,
    found: Findings,
    checks: Checks,
) -> Iterator[tuple[FieldPath, str]]:
    """Images and boxes.

    Yields:
        Sources of the training that have boxes, of which none can be used, and why.
    """
    for one in opened:
        annotations, folder = one.source.annotations, one.source.image_dir
        if folder is not None:
            check_images(
                folder,
                annotations,
                one.at,
                found,
                skip_bad_images=checks.skip_bad_images,
                look=checks.look,
            )
        read = one.kind in ("val", "test") or (one.kind == "train" and get_action(action).trains)
        if read and (why := check_boxes(annotations, one.at, experiment, found)):
            yield (*one.at, "json_file"), why


def _check_training_set(
    training: Sequence[Source],
    unusable: list[tuple[FieldPath, str]],
    experiment: ExperimentConfig,
    found: Findings,
    checks: Checks,
) -> None:
    """Refuse a training set from which nothing can be learned, or that is too small.

    Args:
        unusable: its sources of which no box can be used, and why; emptied where that is the error.
    """
    field: FieldPath = ("dataset", "train_data_sources")
    files = ", ".join(str(source.annotations.path) for source in training)
    images = sum(source.annotations.num_images for source in training)
    with_boxes = sum(source.annotations.num_boxes > 0 for source in training)
    if not images:
        found.error(field, f"the training set is empty: {files} names no images")
    elif not with_boxes:
        found.error(field, f"the training set has no boxes: {files} holds no annotations")
    elif len(unusable) == with_boxes:
        found.error(field, "; ".join(why for _, why in unusable))
        unusable.clear()
    check_sampling([source.annotations for source in training], experiment.engine.sampling, found)
    if images and checks.ranks is not None:
        with found.about(("dataset", "batch_size")):
            batch, accumulate = experiment.dataset.batch_size, experiment.engine.accumulate
            check_batch_fits(images, batch, checks.ranks, accumulate)


def _infer_sources(experiment: ExperimentConfig, found: Findings, checks: Checks) -> list[Source]:
    """Images without annotations, and what their classes are called."""
    given = experiment.dataset.infer_data_sources
    assert given is not None
    here = [one for one in given.image_dir if not (checks.staged_later and _is_staged(one))]
    with found.about(INFER_FIELD):
        check_apart(here, experiment.inference.results_dir or experiment.results_dir)
    sources: list[Source] = []
    for entry in here:
        with found.about(INFER_FIELD):
            listed, notes = find_images([entry], checks.engine)
            sources += listed
            found.warn(INFER_FIELD, *notes)
    if checks.staged_later and is_remote(given.classmap):
        return sources
    with found.about(CLASSMAP_FIELD):
        _, notes = inference_classes(experiment, checks.known)
        found.warn(CLASSMAP_FIELD, *notes)
    return sources


def _is_staged(entry: str) -> bool:
    """Whether images without annotations are not read where they are."""
    return is_remote(entry) or (is_packed(entry) and not is_archive(Path(entry)))
