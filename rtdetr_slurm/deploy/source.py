"""The ONNX file that an engine is built from: a detector's graph, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
from onnx import ModelProto, ValueInfoProto

from rtdetr_slurm.cipher import decrypted
from rtdetr_slurm.engine.onnx_graph import foreign_operators
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.vision.onnx_metadata import (
    BOXES,
    INPUT,
    LOGITS,
    OnnxMetadata,
    nothing_said,
    read_metadata,
    resize_problem,
    says_nothing,
)

if TYPE_CHECKING:
    from rtdetr_slurm.spec import ExperimentConfig


@dataclass(frozen=True)
class SourceGraph:
    """A detector's graph.

    Attributes:
        metadata: as the file has it; where it says nothing, what the spec says, which is in `model`
            then, too.
        stated: whether it is from the spec.
        size: (height, width) of the images that it takes.
        batch: images that it takes at once; None: any number.
        num_queries, num_classes: Q and C of its output.
    """

    model: ModelProto
    metadata: OnnxMetadata
    stated: bool
    size: tuple[int, int]
    batch: int | None
    num_queries: int
    num_classes: int


def read_graph(path: Path, key: str | None, experiment: ExperimentConfig) -> SourceGraph:
    """The graph in an ONNX file, with its weights.

    Args:
        key: of a file that is encrypted.
        experiment: whose dataset and model sections stand in for what the file does not say.

    Raises:
        RequestError: the file is missing or damaged, needs a plugin, is no detector, leaves more
            open than the batch, or was exported for images that are resized otherwise; says what
            to do.
    """
    if not path.is_file():
        raise RequestError(f"ONNX file {path} does not exist")
    try:
        with decrypted(path, key) as source:
            model = onnx.load(source)
    except UserError:
        raise
    except Exception as error:  # protobuf's and onnx's own kinds, which have only this in common
        raise RequestError(f"{path} is no ONNX file that can be read: {error}") from None
    if foreign := foreign_operators(model):
        raise RequestError(
            f"{path} has operators that are not ONNX's own: {', '.join(foreign)}. They need "
            "somebody's plugin, as in what TAO exports; export the checkpoint here instead, which "
            "takes TAO's .pth files and needs none: action export, with the file as "
            "export.checkpoint"
        )
    size, batch, queries, classes = _dimensions(path, model)
    properties = {one.key: one.value for one in model.metadata_props}
    stated = says_nothing(properties)
    if stated:
        metadata = stated_metadata(path, experiment, queries, classes)
        onnx.helper.set_model_props(model, {**properties, **metadata.properties()})
    else:
        metadata = read_metadata(properties, str(path))
        asked = experiment.dataset.augmentation.preserve_aspect_ratio
        if problem := resize_problem(metadata, asked):
            raise RequestError(f"{problem} ({path})")
    return SourceGraph(model, metadata, stated, size, batch, queries, classes)


def stated_metadata(
    path: Path, experiment: ExperimentConfig, num_queries: int, num_classes: int
) -> OnnxMetadata:
    """What the spec says of a detector whose ONNX file says nothing of itself; the names of classes
    are left to who uses the engine.

    Raises:
        RequestError: it does not fit the file.
    """
    classes, select = experiment.dataset.num_classes, experiment.model.num_select
    reason = f"{path} does not say of itself what `rtdetr export` writes, so the spec has to"
    if classes != num_classes:
        raise RequestError(
            f"dataset.num_classes: found {classes}; {reason}, and it has {num_classes}"
        )
    if select > num_queries * num_classes:
        raise RequestError(
            f"model.num_select: found {select}; {reason}, and it has {num_queries} queries of "
            f"{num_classes} classes: {num_queries * num_classes} at most"
        )
    return nothing_said(select, experiment.dataset.augmentation.preserve_aspect_ratio)


def _dimensions(path: Path, model: ModelProto) -> tuple[tuple[int, int], int | None, int, int]:
    """(height, width), batch, queries and classes."""
    weights = {one.name for one in model.graph.initializer}
    inputs = {one.name: _shape(one) for one in model.graph.input if one.name not in weights}
    found = inputs | {one.name: _shape(one) for one in model.graph.output}
    match [found.get(name) for name in (INPUT, LOGITS, BOXES)]:
        case [
            (batch, 3, int(height), int(width)),
            (_, int(queries), int(classes)),
            (_, int(again), 4),
        ] if queries == again and {*inputs} == {INPUT}:
            return (height, width), batch if isinstance(batch, int) else None, queries, classes
        case [(_, 3, height, width), _, _] if not isinstance(height, int) or not isinstance(
            width, int
        ):
            raise RequestError(
                f"{path} leaves the size of its images open ({height} x {width}): an engine is for "
                "one size; export with a fixed height and width, and the batch alone open"
            )
    said = ", ".join(f"{name} {list(shape)}" for name, shape in found.items())
    raise RequestError(
        f"{path} has {said or 'no tensors'}; a detector has {INPUT} [batch, 3, height, width], "
        f"{LOGITS} [batch, queries, classes] and {BOXES} [batch, queries, 4], with nothing open "
        "but the batch"
    )


def _shape(value: ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        one.dim_value if one.dim_value > 0 else one.dim_param or "?"
        for one in value.type.tensor_type.shape.dim
    )


def with_batch(model: ModelProto, batch: int) -> ModelProto:
    """A copy of a graph with an open batch that takes so many images at once."""
    made = ModelProto()
    made.CopyFrom(model)
    made.graph.ClearField("value_info")
    for value in (*made.graph.input, *made.graph.output):
        if value.name in (INPUT, LOGITS, BOXES):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    return made
