"""quantize.json: what was quantized how, what that costs in accuracy, and what each layer does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import QUANTIZE_VERSION
from rtdetr_slurm.engine.evaluation import Scores
from rtdetr_slurm.engine.quantization.subject import Subject
from rtdetr_slurm.files import sha256_of
from rtdetr_slurm.spec.quantization import LayerFormat
from rtdetr_slurm.spec.quantize import QuantizeConfig
from rtdetr_slurm.vision.scoring import EvaluationData

CALIBRATION_IMAGES = 512
"""At most so many images calibrate, spread evenly over their source."""


@dataclass(frozen=True)
class Images:
    """Annotated images, and the kind of data source they are of; None: there are none, and why."""

    kind: str = ""
    data: EvaluationData | None = None
    why: str = ""

    @property
    def source(self) -> str | None:
        return f"dataset.{self.kind}_data_sources" if self.data else None


def described(config: QuantizeConfig, subject: Subject, library: str, made: Path) -> dict[str, Any]:
    """What was made of what, and how."""
    path = Path(config.model_path)
    return {
        "schema_version": QUANTIZE_VERSION,
        "version": __version__,
        "model_path": str(path),
        "model_sha256": sha256_of(path),
        "epoch": subject.epoch,
        "quantized_file": str(made),
        "quantized_sha256": sha256_of(made),
        "quantized_bytes": made.stat().st_size,
        "backend": config.backend,
        "library": library,
        "mode": config.mode,
        "algorithm": config.algorithm,
        "input_size": list(subject.size),
    }


def of_images(images: Images) -> dict[str, Any]:
    """What calibrated."""
    assert images.data is not None
    used = len(images.data.table.spread(CALIBRATION_IMAGES))
    return {"source": images.source, "images": used}


def accuracy(before: Scores | None, after: Scores | None, images: Images) -> dict[str, Any] | None:
    """COCO's twelve numbers of both; None where nothing was scored."""
    if before is None or after is None or images.data is None:
        return None
    return {
        "source": images.source,
        "images": len(images.data.table),
        "before": _numbers(before.summary),
        "after": _numbers(after.summary),
        "mAP_difference_points": _number(100 * (after.summary["mAP"] - before.summary["mAP"])),
    }


def of_layers(
    subject: Subject,
    layers: Mapping[str, LayerFormat],
    left: Mapping[str, str],
    moved: Mapping[str, float],
) -> dict[str, Any]:
    """The share of the work that is quantized, and every layer."""
    work = {one.name: one.multiply_adds for one in subject.candidates}
    done = sum(work[name] for name in layers)
    entries = [
        {
            "name": one.name,
            "class": one.kinds[0],
            "weights": layers[one.name].weights,
            "activations": layers[one.name].activations,
            "share": round(work[one.name] / subject.multiply_adds, 6),
            "sensitivity": moved.get(one.name),
        }
        for one in subject.candidates
        if one.name in layers
    ]
    return {
        "work": {
            "multiply_adds": subject.multiply_adds,
            "quantized": done,
            "share": round(done / subject.multiply_adds, 6),
        },
        "layers": sorted(entries, key=lambda entry: -(entry["sensitivity"] or 0)),
        "left_out": dict(left),
    }


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
