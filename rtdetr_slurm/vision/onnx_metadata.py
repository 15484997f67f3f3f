"""What an ONNX file of this program says of itself, for whoever runs it: names, shapes, metadata.

The graph's own part is the contract of a `Predict`: `inputs` to `pred_logits` and `pred_boxes`. The
rest is in the file's metadata, where every ONNX tool can read it: text under these keys, JSON where
it has parts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rtdetr_slurm.errors import NewerVersion, RequestError
from rtdetr_slurm.records import checked

T = TypeVar("T")

INPUT = "inputs"
"""float32 [batch, 3, height, width], RGB in 0..1."""
LOGITS, BOXES = "pred_logits", "pred_boxes"
"""float32 [batch, Q, C], before the sigmoid, and [batch, Q, 4], cxcywh in 0..1."""
BATCH = "batch"
"""Name of the batch axis where it is left open."""

SCHEMA_VERSION = 1

_PREFIX = "rtdetr."
_SCHEMA = f"{_PREFIX}schema_version"
_VERSION = f"{_PREFIX}version"
_CHECKPOINT = f"{_PREFIX}checkpoint"
_DIGEST = f"{_PREFIX}checkpoint_sha256"
_EPOCH = f"{_PREFIX}epoch"
_CLASSES = f"{_PREFIX}classes"
_THRESHOLDS = f"{_PREFIX}thresholds"
_NUM_SELECT = f"{_PREFIX}num_select"
_PREPROCESSING = f"{_PREFIX}preprocessing"

_RESIZES = {False: "stretch", True: "preserve aspect ratio, pad right and bottom with 0"}
"""What there is, by dataset.augmentation.preserve_aspect_ratio."""


def preprocessing(preserve_aspect_ratio: bool) -> dict[str, Any]:
    """What `preprocess` does to an image."""
    return {
        "color": "RGB",
        "range": [0, 1],
        "mean": None,
        "std": None,
        "resize": _RESIZES[preserve_aspect_ratio],
        "interpolation": "bilinear, antialiased",
    }


@dataclass(frozen=True)
class OnnxMetadata:
    """What is known of an exported detector.

    Attributes:
        version: of the program that has exported it.
        checkpoint: name of the file it was made from; empty where nobody knows.
        checkpoint_sha256: that file's digest; likewise.
        epoch: of the training; None for weights from elsewhere.
        classes: class id to name; None where the checkpoint names none.
        thresholds: class name to the score with the best F1; empty where nobody has measured them.
        num_select: detections that are kept per image.
        preserve_aspect_ratio: whether it was exported for images that keep theirs.
    """

    version: str
    checkpoint: str
    checkpoint_sha256: str
    epoch: int | None
    classes: Mapping[int, str] | None
    thresholds: Mapping[str, float]
    num_select: int
    preserve_aspect_ratio: bool

    def properties(self) -> dict[str, str]:
        """As the file holds it."""
        known = {
            _SCHEMA: SCHEMA_VERSION,
            _EPOCH: self.epoch,
            _CLASSES: _by_text(self.classes),
            _THRESHOLDS: dict(self.thresholds) or None,
            _NUM_SELECT: self.num_select,
            _PREPROCESSING: preprocessing(self.preserve_aspect_ratio),
        }
        return {
            _VERSION: self.version,
            _CHECKPOINT: self.checkpoint,
            _DIGEST: self.checkpoint_sha256,
            **{
                key: json.dumps(value, ensure_ascii=False)
                for key, value in known.items()
                if value is not None
            },
        }


def nothing_said(num_select: int, preserve_aspect_ratio: bool) -> OnnxMetadata:
    """Of a file that says nothing of itself, so that the spec has to."""
    return OnnxMetadata(
        version="",
        checkpoint="",
        checkpoint_sha256="",
        epoch=None,
        classes=None,
        thresholds={},
        num_select=num_select,
        preserve_aspect_ratio=preserve_aspect_ratio,
    )


def resize_problem(metadata: OnnxMetadata, preserve_aspect_ratio: bool) -> str | None:
    """In words, where a file was not exported for images as the spec has them."""
    if metadata.preserve_aspect_ratio == preserve_aspect_ratio:
        return None
    found, allowed = json.dumps(preserve_aspect_ratio), json.dumps(metadata.preserve_aspect_ratio)
    return (
        f"dataset.augmentation.preserve_aspect_ratio: found {found}; allowed: {allowed}, which the "
        "detector was exported with; export the checkpoint again for the other"
    )


def says_nothing(properties: Mapping[str, str]) -> bool:
    """Whether a file's metadata has nothing of this program: another one has made it."""
    return not any(key.startswith(_PREFIX) for key in properties)


def _by_text(classes: Mapping[int, str] | None) -> dict[str, str] | None:
    return None if classes is None else {str(number): name for number, name in classes.items()}


def read_metadata(properties: Mapping[str, str], name: str) -> OnnxMetadata:
    """What a file says of itself.

    Args:
        properties: its metadata.
        name: of the file, for messages.

    Raises:
        RequestError: it does not say it, or says what this program cannot honour.
    """

    def text(key: str) -> str:
        if key not in properties:
            raise RequestError(
                f"{name} has no {key} in its metadata; files that `rtdetr export` has made do"
            )
        return properties[key]

    def value(kind: type[T], key: str) -> T:
        try:
            data = json.loads(text(key))
        except (ValueError, RecursionError):
            raise RequestError(f"{name}: {key} in its metadata is no JSON") from None
        return checked(kind, data, f"{name}: {key} in its metadata")

    version = value(int, _SCHEMA)
    if version > SCHEMA_VERSION:
        raise NewerVersion(name, version, SCHEMA_VERSION)
    prepared = value(Mapping[str, Any], _PREPROCESSING)  # type: ignore[type-abstract]
    keeps = prepared.get("resize") == _RESIZES[True]
    if prepared != preprocessing(keeps):
        raise RequestError(
            f"{name}: {_PREPROCESSING} in its metadata is {properties[_PREPROCESSING]}; images are "
            f"prepared as {json.dumps(preprocessing(False))} here, or with the resize "
            f"{_RESIZES[True]!r}"
        )
    named = value(dict[str, str], _CLASSES) if _CLASSES in properties else {}
    if not all(number.isdecimal() for number in named):
        raise RequestError(f"{name}: {_CLASSES} in its metadata has what is no class id")
    return OnnxMetadata(
        version=text(_VERSION),
        checkpoint=text(_CHECKPOINT),
        checkpoint_sha256=text(_DIGEST),
        epoch=value(int, _EPOCH) if _EPOCH in properties else None,
        classes={int(number): one for number, one in named.items()} or None,
        thresholds=value(dict[str, float], _THRESHOLDS) if _THRESHOLDS in properties else {},
        num_select=value(int, _NUM_SELECT),
        preserve_aspect_ratio=keeps,
    )
