"""parity.json: what an engine is worth beside what it was made of, on the same images, and how long
each takes. What it may lose is limited."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rtdetr_slurm import __version__
from rtdetr_slurm.contract import PARITY_VERSION
from rtdetr_slurm.deploy import clocks
from rtdetr_slurm.deploy.forms import Form, Missing
from rtdetr_slurm.engine.comparison import Compared
from rtdetr_slurm.vision.tradeoff import Latency, Measured, Tradeoff

MAX_DROP: Mapping[str, float] = {"FP32": 0.5, "FP16": 0.5, "INT8": 1.5}
"""Points of mAP that an engine may lose, by its precision."""


@dataclass(frozen=True)
class Scored:
    """A form that was scored and timed.

    Attributes:
        scores: mAP and mAP50, in 0..1; NaN where there are no boxes to find.
        clocks: of the GPU, when it was timed.
    """

    form: Form
    scores: Mapping[str, float]
    latency: Sequence[Latency]
    clocks: Mapping[str, Any] | None

    @property
    def mean_ap(self) -> float:
        return self.scores["mAP"]

    @property
    def measured(self) -> Measured:
        """As a report shows it."""
        form = self.form
        where = f"{form.runtime} on {form.device.type}"
        return Measured(f"{form.kind} {form.precision}", where, self.mean_ap, self.latency)


@dataclass(frozen=True)
class Parity:
    """Forms of a detector that were scored on the same images.

    Attributes:
        forms: the checkpoint first, and last what is judged; empty where nothing was compared.
        missing: forms that there are none of here, and why.
        limit: points of mAP that the last may lose against the first.
    """

    compared: Compared
    forms: Sequence[Scored]
    missing: Sequence[Missing]
    limit: float

    @property
    def reference(self) -> Scored | None:
        """What the last form is compared with; None: with nothing."""
        return self.forms[0] if len(self.forms) > 1 else None

    @property
    def drop(self) -> float | None:
        """Points of mAP that the last form has lost against the reference; None: nobody knows."""
        return None if self.reference is None else self.lost_by(self.forms[-1])

    def lost_by(self, one: Scored) -> float | None:
        """Points of mAP that a form has lost against the first."""
        lost = round(100 * (self.forms[0].mean_ap - one.mean_ap), 6)
        return None if math.isnan(lost) else lost

    @property
    def unknown(self) -> str | None:
        """Why nobody knows what was lost; None: it is known."""
        if not self.forms:
            return self.compared.why
        if self.reference is None:
            return "; ".join(one.why for one in self.missing)
        return f"{self.compared.source} has no boxes to find" if self.drop is None else None

    @property
    def problem(self) -> str | None:
        """What is wrong with the last form, and what to do; None: nothing, as far as is known."""
        if self.drop is None or self.reference is None or self.drop <= self.limit:
            return None
        last = self.forms[-1]
        return (
            f"the {last.form.kind} loses {self.drop:.2f} points of mAP against the "
            f"{self.reference.form.kind} ({self.reference.mean_ap:.4f} to {last.mean_ap:.4f} on "
            f"{said_of(self.compared)}), and {self.limit:g} are allowed in {last.form.precision}. "
            f"{self._advice()}, or allow more: --max-map-drop (job.max_map_drop)"
        )

    def _advice(self) -> str:
        onnx, precision = self.forms[-2], self.forms[-1].form.precision
        if len(self.forms) > 2 and (self.lost_by(onnx) or 0) > self.limit:
            return (
                f"The ONNX file has lost {self.lost_by(onnx):.2f} of them already: export the "
                "checkpoint again"
            )
        if precision == "INT8":
            return (
                "Calibrate on more images, like those that it will see (cal_image_dir, cal_batches "
                "in gen_trt_engine.tensorrt.calibration), or build it in FP16 (tensorrt.data_type)"
            )
        if precision == "FP16":
            return (
                "Keep layers in FP32 (gen_trt_engine.tensorrt.layers_precision), or build it in "
                "FP32 (tensorrt.data_type)"
            )
        return "In FP32 nothing should be lost: please report this with the spec"

    def text(self, action: str, file: Path, size: tuple[int, int]) -> str:
        """As parity.json holds it."""
        data = self.compared.data
        content = {
            "schema_version": PARITY_VERSION,
            "version": __version__,
            "action": action,
            "file": str(file),
            "input_size": list(size),
            "source": self.compared.source if data else None,
            "images": len(data.table) if data else 0,
            "images_of_source": self.compared.images,
            "max_drop_points": self.limit,
            "reference": self.reference and self.reference.form.kind,
            "drop_points": self.drop,
            "accepted": None if self.unknown else self.problem is None,
            "not_known": self.unknown,
            "forms": [{**described(one), "drop_points": self.lost_by(one)} for one in self.forms],
            "not_compared": {one.kind: one.why for one in self.missing},
            "timed_with": clocks.clock_facts() if self.forms else None,
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @property
    def tradeoff(self) -> Tradeoff | None:
        """For a report."""
        if not self.forms:
            return None
        note = f"{timed_note(self.compared)} parity.json has more."
        return Tradeoff([one.measured for one in self.forms], note)


def described(one: Scored) -> dict[str, Any]:
    """What is known of a form, as plain data with None for NaN."""
    form = one.form
    return {
        "form": form.kind,
        "file": str(form.file),
        "sha256": form.sha256,
        "ran": str(form.ran or form.file),
        "precision": form.precision,
        "runtime": form.runtime,
        "device": _device_name(form.device),
        **{name: None if math.isnan(v) else v for name, v in one.scores.items()},
        "latency": [each._asdict() for each in one.latency],
        "gpu_clocks": one.clocks,
    }


def timed_note(compared: Compared) -> str:
    """On what, and with which clock, for a report."""
    said = clocks.clock_facts()
    return (
        f"On {said_of(compared)}. Each was timed where it runs, by {said['clock']}; the processor "
        f"is {said['cpu']}, with {said['threads']} threads."
    )


def said_of(compared: Compared) -> str:
    """What was compared on, in words."""
    assert compared.data is not None
    return f"{len(compared.data.table)} of {compared.images} images of {compared.source}"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else clocks.cpu_model()
