"""Which layers are INT8, so that most of the work is and no more accuracy is lost than allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import torch
from onnx import ModelProto, NodeProto

from rtdetr_slurm.deploy.precision.calibration import Calibration
from rtdetr_slurm.deploy.precision.int8 import with_int8
from rtdetr_slurm.deploy.precision.ranges import measured_ranges
from rtdetr_slurm.engine.quantization.measure import LOOKED_AT
from rtdetr_slurm.engine.quantization.onnx_file import multiply_adds, nodes_of, opened
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.spec.quantization import SENSITIVE
from rtdetr_slurm.vision.onnx_runtime import OnnxDetector
from rtdetr_slurm.vision.scoring import Predict

_SINGLY = 8
"""So many of the layers that did not fit are tried again, one by one."""


def within_limit(
    work: Mapping[str, int],
    moved: Mapping[str, float],
    lost: Callable[[frozenset[str]], float],
    limit: float,
) -> frozenset[str]:
    """The layers to quantize: in the order of what each moves detections by for its share of the
    work, as many as fit the limit; of those after them the busiest that fit, too.

    Args:
        work: multiply-adds by layer.
        moved: how far detections move where a layer alone is quantized; layers that are not in it
            stay as they are.
        lost: points of mAP that are lost where all of these are quantized.
        limit: in points of mAP.
    """
    order = sorted(moved, key=lambda name: moved[name] / max(work[name], 1))
    if lost(frozenset(order)) <= limit:
        return frozenset(order)
    fits, too_many = 0, len(order)
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        if lost(frozenset(order[:middle])) <= limit:
            fits = middle
        else:
            too_many = middle
    chosen = frozenset(order[:fits])
    for name in sorted(order[fits:], key=lambda name: -work[name])[:_SINGLY]:
        if lost(chosen | {name}) <= limit:
            chosen |= {name}
    return chosen


def quantize(
    model: ModelProto,
    asked: Mapping[str, str],
    calibration: Calibration,
    finished: Callable[[ModelProto], ModelProto],
) -> ModelProto:
    """Have the layers in INT8 that may lose so much and no more; where nothing can be scored, those
    that RT-DETR is known to tolerate.

    Args:
        model: each of its nodes has a name of its own.
        asked: node to the number format that it must have.
        finished: what is built of the graph that this returns, and so is to be scored.

    Raises:
        RequestError: what is to be INT8 is no product, or there are no images.
        Interrupted: asked to stop.
    """
    nodes = nodes_of(model, with_weights=False)
    _, work = multiply_adds(model, nodes)
    formats = {layer: asked.get(node.name) for layer, node in nodes.items()}
    always = frozenset(layer for layer, number in formats.items() if number == "int8")
    free = [layer for layer, number in formats.items() if number is None]
    if "int8" in asked.values() and not always:
        raise RequestError(
            "gen_trt_engine.tensorrt.layers_precision: int8 is for convolutions and products of "
            f"matrices, such as {next(iter(nodes))}, and the entries mean none"
        )
    ranges = _ranges(model, nodes, calibration)

    def made(layers: Iterable[str]) -> ModelProto:
        return with_int8(model, {nodes[layer].name for layer in layers}, ranges)

    chosen = always | {layer for layer in free if not layer.startswith(SENSITIVE)}
    if calibration.score is not None:
        score = calibration.score

        def scored(layers: Iterable[str]) -> float:
            return score(opened(finished(made(layers))))

        @contextmanager
        def alone(layer: str) -> Iterator[OnnxDetector]:
            yield opened(made([layer]))

        before = score(opened(model))

        def lost(layers: frozenset[str]) -> float:
            after = scored(layers | always)
            calibration.say(
                f"INT8 in {len(layers | always)} of {len(nodes)} layers: mAP {before:.4f} to "
                f"{after:.4f} on what is scored to choose them"
            )
            return 100 * (before - after)

        moved = _sensitivities(model, sorted(free, key=lambda one: -work[one]), alone, calibration)
        moved = {layer: moved[layer] for layer in free if layer in moved}
        chosen = always | within_limit(work, moved, lost, calibration.limit)
    else:
        calibration.say(
            "INT8 without a limit on the drop: there are no boxes to score on (dataset."
            "val_data_sources or dataset.quant_calibration_data_sources); the decoder and the "
            "encoder's transformer stay in higher precision"
        )
    return made(chosen)


def _ranges(
    model: ModelProto, nodes: Mapping[str, NodeProto], calibration: Calibration
) -> Mapping[str, float]:
    record = calibration.record
    weights = {one.name for one in model.graph.initializer}
    tensors = {name for node in nodes.values() for name in node.input[:2]} - weights
    if not tensors <= record.ranges.keys():
        ranges = measured_ranges(model, tensors, calibration.batches(calibration.images))
        calibration.keep(replace(record, images=calibration.images, ranges=ranges))
    return calibration.record.ranges


def _sensitivities(
    model: ModelProto,
    layers: list[str],
    alone: Callable[[str], AbstractContextManager[Predict]],
    calibration: Calibration,
) -> Mapping[str, float]:
    record = calibration.record
    missing = [layer for layer in layers if layer not in record.sensitivities]
    if missing:
        images = torch.cat([*calibration.batches(LOOKED_AT)])
        found = calibration.compare(opened(model), images, missing, alone)
        calibration.keep(replace(record, sensitivities={**record.sensitivities, **found}))
    return calibration.record.sensitivities
