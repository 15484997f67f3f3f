"""Inference from a detector to the files of its detections, whatever runs the detector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rtdetr_slurm.contract import IMAGES_JSON, PREDICTIONS_JSON
from rtdetr_slurm.errors import ActionError
from rtdetr_slurm.files import Content
from rtdetr_slurm.spec.colours import parse_colour
from rtdetr_slurm.vision.output_names import name_outputs
from rtdetr_slurm.vision.predictions import (
    clipped_rows,
    images_json,
    predictions_json,
    written_before,
)
from rtdetr_slurm.vision.result_writer import ResultWriter
from rtdetr_slurm.vision.samples import Batch
from rtdetr_slurm.vision.scoring import EvaluationData, Predict, detect

if TYPE_CHECKING:
    from rtdetr_slurm.spec.inference import InferenceConfig


@dataclass
class Found:
    """What one process has found in its share of the images.

    Attributes:
        rows: float64 [D, 7] of each batch, as `predictions.clipped_rows` gives them.
        sizes: width and height of the images that were used, by position.
        problems: why the others were not.
    """

    rows: list[NDArray[np.float64]] = field(default_factory=list)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Totals:
    """Numbers of an inference: detections, images that were used, images that could not be."""

    detections: int
    images: int
    left_out: int


class Inference:
    """An inference and its results folder: `begin` once, `run` in each process, `finish` once."""

    def __init__(
        self,
        data: EvaluationData,
        cfg: InferenceConfig,
        folder: Path,
        write: Callable[[str, Content], None],
        facts: Mapping[str, Any],
    ) -> None:
        """
        Args:
            data: of `image_set.image_data`.
            folder: for results. write: replaces a file in it.
            facts: for images.json.
        """
        self.data, self.folder, self.write = data, folder, write
        self.facts = {
            **facts,
            "input_size": list(data.resize.size),
            "conf_threshold": data.conf_threshold,
        }
        self.outputs = name_outputs(data.table, by_sequence=cfg.is_internal)
        self.outline = cfg.outline_width
        chosen = {name: parse_colour(colour) for name, colour in (cfg.color_map or {}).items()}
        self.colours = {
            number: colour
            for number, name in data.table.classes.items()
            if (colour := chosen.get(name)) is not None
        }

    def begin(self) -> None:
        """Remove what an earlier inference has left in the folder, and write down what this one
        will write: whenever it ends, the next one finds all of it.

        Raises:
            RequestError: what the earlier one has left cannot be told.
            ActionError: a file cannot be removed.
            what `write` raises.
        """
        places: set[PurePosixPath] = set()
        path = self.folder / PREDICTIONS_JSON
        try:
            path.unlink(missing_ok=True)
            for name in written_before(self.folder / IMAGES_JSON):
                path = self.folder / name
                path.unlink(missing_ok=True)
                places |= {*PurePosixPath(name).parents} - {PurePosixPath()}
        except OSError as error:
            raise ActionError(f"cannot remove {path}: {error.strerror}") from None
        for place in sorted(places, reverse=True):  # a folder before the one that it is in
            try:
                (self.folder / place).rmdir()
            except OSError:
                continue  # it holds something else
        pieces = images_json(self.data.table, self.outputs, self.facts)
        self.write(IMAGES_JSON, lambda stream: stream.writelines(pieces))

    def run(
        self, predict: Predict, batches: Iterable[Batch], device: torch.device, threads: int
    ) -> Found:
        """Run a detector over batches of an ImageSet, and write the pictures and label files.

        Args:
            threads: that draw and write.

        Raises:
            what `batches` and `write` raise.
        """
        table, found = self.data.table, Found()
        writer = ResultWriter(
            self.write, self.outputs, table.classes, self.colours, self.outline, threads
        )
        with writer:
            for detected in detect(predict, batches, self.data, device):
                batch, rows = detected.batch, clipped_rows(detected)
                reasons = {bad.path: bad.reason for bad in batch.bad}
                found.rows.append(rows)
                sizes = batch.sizes.int().tolist()
                for image, size, file in zip(batch.images, sizes, batch.files, strict=True):
                    if (path := str(table.path(image))) in reasons:
                        found.problems[image] = reasons[path]
                        continue
                    found.sizes[image] = (size[0], size[1])
                    writer.write(image, file, rows[rows[:, 0] == image])
        return found

    def finish(self, found: Sequence[Found]) -> Totals:
        """Write images.json and predictions.json from what all processes have found.

        Raises:
            ActionError: no image could be used.
            what `write` raises.
        """
        table = self.data.table
        sizes = {image: size for one in found for image, size in one.sizes.items()}
        problems = {image: reason for one in found for image, reason in one.problems.items()}
        if not sizes:
            image, reason = min(problems.items())
            raise ActionError(
                f"none of the {len(table)} images could be used: {table.path(image)} {reason}"
            )
        rows = np.concatenate([np.empty((0, 7)), *(rows for one in found for rows in one.rows)])
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        images = images_json(table, self.outputs, self.facts, sizes, problems)
        predictions = predictions_json(rows)
        self.write(IMAGES_JSON, lambda stream: stream.writelines(images))
        self.write(PREDICTIONS_JSON, lambda stream: stream.writelines(predictions))
        return Totals(len(rows), len(sizes), len(problems))
