"""All that can be found out about the data of a spec: every file, every image, every action.

Standard library only, but for what decodes the images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rtdetr_slurm.actions import EngineOf, get_action, own_engine
from rtdetr_slurm.data.calibration import CALIBRATION_FIELD
from rtdetr_slurm.data.check import INFER_FIELD, Checks, inspect_sources
from rtdetr_slurm.data.classes import find_classes
from rtdetr_slurm.data.coco import Source, read_annotations
from rtdetr_slurm.data.decoding import DecodeImages, Told
from rtdetr_slurm.data.findings import Findings
from rtdetr_slurm.data.image_sources import is_image
from rtdetr_slurm.data.leakage import find_leaks

if TYPE_CHECKING:
    from rtdetr_slurm.spec.experiment import ExperimentConfig


Classes: TypeAlias = Mapping[int, str] | None
KnownOf: TypeAlias = Callable[[str, Classes], Classes]


@dataclass(frozen=True)
class DataReport:
    """What the data of a spec are like.

    Attributes:
        sources: the annotated ones that could be read, each once, by the kind it was first met as.
        bad_images: that cannot be used, and why, in words that follow the name.
        named: what is called by a path, as whoever wrote the spec calls it.
    """

    findings: Findings
    sources: Sequence[tuple[str, Source]]
    bad_images: Sequence[tuple[Path, str]] = ()
    named: Callable[[str], str] = str

    @property
    def labels(self) -> list[str]:
        """What each source is called: its kind, with a number where there are several of it."""
        kinds = [kind for kind, _ in self.sources]
        met: Counter[str] = Counter()
        labels = []
        for kind in kinds:
            met[kind] += 1
            labels.append(kind if kinds.count(kind) == 1 else f"{kind} {met[kind]}")
        return labels

    @property
    def corrections(self) -> dict[str, Any]:
        """Dotted fields of the spec, and the values by which what is wrong with them is mended."""
        right: dict[str, Any] = {}
        for finding in self.findings:
            for name, value in finding.correction.items():
                if name not in right:
                    right[name] = value
                elif isinstance(value, list):
                    right[name] = sorted({*right[name], *value})
                else:
                    right[name] = max(right[name], value)
        return right


def check_everything(
    experiment: ExperimentConfig,
    actions: Sequence[str],
    *,
    workers: int,
    engine_of: EngineOf = own_engine,
    ranks_of: Callable[[str], int] | None = None,
    skip_bad_images: bool = False,
    staged_later: bool = False,
    known_of: KnownOf = lambda _, before: before,
    told: Told | None = None,
) -> DataReport:
    """Check the data of a chain of actions, and decode every image that is here.

    Args:
        workers: processes that decode.
        engine_of: whose image an action runs in.
        ranks_of: of an action how many ranks share it.
        skip_bad_images: as job.bad_images says for trainings.
        staged_later: as of `Checks`.
        known_of: by action and classes of what was trained before it, the classes of the weights
            that it uses: id to name, as of `Checks`.
        told: of the images that have been decoded.

    Raises:
        ActionError: the memory does not suffice.
    """
    found = Findings()
    trained: Classes = None
    read = cache(read_annotations)
    sources: dict[tuple[Path | None, Path], tuple[str, Source]] = {}
    roles: dict[tuple[str, Path | None, Path], tuple[str, Source]] = {}
    with DecodeImages(workers, told) as look:
        for action in actions:
            trains = get_action(action).trains
            checks = Checks(
                engine=engine_of(action),
                skip_bad_images=trains and skip_bad_images,
                ranks=None if ranks_of is None else ranks_of(action),
                known=known_of(action, trained),
                staged_later=staged_later,
                read=read,
                look=look,
            )
            opened = inspect_sources(experiment, action, found, checks)
            every = [(kind, source) for kind, group in opened.items() for source in group]
            for kind, source in every:
                if kind in ("infer", "calibration"):
                    _look_at_unannotated(kind, source, look, found)
                    continue
                place = source.image_dir, source.annotations.path
                sources.setdefault(place, (kind, source))
                if kind != "train" or trains:  # others calibrate on them
                    roles.setdefault((kind, *place), (kind, source))
            if trains:
                trained, _ = find_classes([source.annotations for _, source in every])
    find_leaks([*roles.values()], look.digests, found)
    return DataReport(found, [*sources.values()], look.wrong)


def _look_at_unannotated(kind: str, source: Source, look: DecodeImages, found: Findings) -> None:
    """Images that are found and not named: those that cannot be used are left out, unless they are
    all that there are."""
    if source.image_dir is None:
        return
    names = source.annotations.file_names
    others = [name for name in names if not is_image(name)]  # HDF5 files, which TAO reads
    looked = look(source.image_dir, source.annotations, others)
    if looked.wrong:
        name, problem = looked.wrong[0]
        field = CALIBRATION_FIELD if kind == "calibration" else INFER_FIELD
        said = (
            f"{len(looked.wrong)} of {looked.number} images of {source.annotations.path} cannot be "
            f"used: {name!r} {problem}"
        )
        if len(looked.wrong) == looked.number:
            found.error(field, said)
        else:
            found.warn(field, f"{said}; such images are left out")
