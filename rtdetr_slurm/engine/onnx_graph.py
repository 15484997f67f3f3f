"""A detector as an ONNX graph of standard operators, with nothing open but the batch.

The tracing exporter of torch.onnx is used: the newer one begins with opset 18, and what it makes of
that for 17 is not valid. All sizes but the batch are numbers in the model's code (`fixed_sizes`),
so the trace has no arithmetic on shapes.
"""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from rtdetr_slurm import __version__
from rtdetr_slurm.cipher import encrypted
from rtdetr_slurm.engine.models import RTDETR
from rtdetr_slurm.files import replace_with
from rtdetr_slurm.vision.onnx_metadata import BATCH, BOXES, INPUT, LOGITS

PRODUCER = "rtdetr-slurm"
MAX_BYTES = 2**31 - 2**24
"""Weights beyond this go into a file of their own: protobuf's messages end at 2 GiB."""
DATA_SUFFIX = ".data"
"""How that file's name goes on after the ONNX file's."""


class Deployed(nn.Module):
    """A detector as it is deployed: convolutions with their batch norms in them, RepVGG blocks
    merged, the two outputs in their order."""

    def __init__(self, detector: RTDETR) -> None:
        super().__init__()
        fused = detector.fuse()
        self.backbone, self.encoder, self.decoder = fused.backbone, fused.encoder, fused.decoder

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = self.decoder(self.encoder(self.backbone(images)), None)
        return outputs[LOGITS], outputs[BOXES]


def trace(
    detector: RTDETR,
    size: tuple[int, int],
    *,
    batch: int | None,
    opset: int,
    metadata: Mapping[str, str],
    verbose: bool = False,
) -> ModelProto:
    """The graph of a detector, which is left as it is.

    Args:
        size: (height, width) of the images.
        batch: images at once; None: any number.
        metadata: keys and values for the file.
        verbose: let the exporter print what it makes.
    """
    deployed = Deployed(detector).cpu().float()
    example = torch.zeros(2, 3, *size, dtype=torch.float32)
    with torch.no_grad():
        # Position code and anchors are made, and from now on known: constants of the trace.
        shapes = dict(zip((LOGITS, BOXES), (one.shape for one in deployed(example)), strict=True))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes become constants, and that this is the tracer
        memory, path = io.BytesIO(), Path(folder, "traced.onnx")
        small = fits_one_file(deployed)
        torch.onnx.export(
            deployed,
            (example,),
            memory if small else str(path),  # type: ignore[arg-type]  # it takes both
            input_names=[INPUT],
            output_names=[LOGITS, BOXES],
            dynamic_axes={name: {0: BATCH} for name in (INPUT, LOGITS, BOXES)},
            opset_version=opset,
            dynamo=False,
            verbose=verbose,
        )
        model = onnx.load_from_string(memory.getvalue()) if small else onnx.load(path)
    _drop_identities(model)
    for node in model.graph.node:
        node.ClearField("doc_string")
    model.producer_name, model.producer_version = PRODUCER, __version__
    model.graph.name = "rtdetr"
    onnx.helper.set_model_props(model, dict(metadata))
    for value in model.graph.input:
        _state_shape(value, (3, *size), batch)
    for value in model.graph.output:
        _state_shape(value, tuple(shapes[value.name][1:]), batch)
    return model


def fits_one_file(detector: nn.Module) -> bool:
    """Whether the weights of a detector do not need a file of their own."""
    size: int = sum(tensor.nbytes for tensor in detector.state_dict().values())
    return size <= MAX_BYTES


def save(model: ModelProto, path: Path, key: str | None = None) -> None:
    """Write a graph and check it as a whole. Weights that do not fit are in a file beside it, of
    its name with DATA_SUFFIX.

    Args:
        key: that it is encrypted with, where its weights fit one file; None: it is not.

    Raises:
        OSError: it cannot be written.
    """
    if key is not None:
        text = model.SerializeToString()
        onnx.checker.check_model(text, full_check=True)
        replace_with(path, encrypted(lambda stream: stream.write(text), key))
        return
    weights = sum(len(one.raw_data) for one in model.graph.initializer)
    if weights > MAX_BYTES:
        data = path.name + DATA_SUFFIX
        onnx.save_model(model, str(path), save_as_external_data=True, location=data)
    else:
        onnx.save_model(model, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def foreign_operators(model: ModelProto) -> list[str]:
    """Operators that are not ONNX's own: a file with them needs somebody's plugin."""
    return sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type)
        }
    )


def _state_shape(value: onnx.ValueInfoProto, sizes: Sequence[int], batch: int | None) -> None:
    shape = value.type.tensor_type.shape
    shape.ClearField("dim")
    if batch is None:
        shape.dim.add().dim_param = BATCH
    else:
        shape.dim.add().dim_value = batch
    for number in sizes:
        shape.dim.add().dim_value = number


def _drop_identities(model: ModelProto) -> None:
    """The exporter keeps one of several equal weights and names the others after it."""
    graph = model.graph
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        if node.op_type == "Identity" and node.output[0] not in outputs:
            same[node.output[0]] = node.input[0]
        else:
            kept.append(node)
    del graph.node[:]
    graph.node.extend(kept)
