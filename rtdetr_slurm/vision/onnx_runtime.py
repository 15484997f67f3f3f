"""A detector in an ONNX file, run by ONNX Runtime on the CPU: a `Predict` as any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from rtdetr_slurm.cipher import decrypted
from rtdetr_slurm.errors import RequestError, UserError
from rtdetr_slurm.vision.batching import in_batches
from rtdetr_slurm.vision.onnx_metadata import (
    BOXES,
    INPUT,
    LOGITS,
    OnnxMetadata,
    read_metadata,
    says_nothing,
)

_ERRORS_ONLY = 3
"""A level of ONNX Runtime's log: the rest is about its own optimisations."""

_WRONG_FOR_FP8 = ["ReluQuantRewrite", "ClipQuantRewrite"]
"""Optimisations that take a zero point of 0 for the least number, and a ReLU away before FP8."""


@dataclass(frozen=True)
class OnnxDetector:
    """A `Predict`; see `open_onnx`.

    Attributes:
        size: (height, width) of the images it takes.
        batch: images that it takes at once; None: any number.
        num_queries, num_classes: Q and C of its output.
    """

    metadata: OnnxMetadata
    size: tuple[int, int]
    batch: int | None
    num_queries: int
    num_classes: int
    _session: Any

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """[B, 3, height, width] to `pred_logits` and `pred_boxes`, on the device of the images.

        Where the file takes a fixed number of images, any number is cut into so many, and the last
        ones are filled up.

        Raises:
            RequestError: the images have another size.
        """
        if tuple(images.shape[1:]) != (3, *self.size):
            raise RequestError(
                f"the ONNX file takes images of 3x{self.size[0]}x{self.size[1]}, got "
                f"{'x'.join(map(str, images.shape[1:]))}"
            )
        outputs = in_batches(self._run, images.cpu().float(), self.batch or 0, self.batch)
        logits, boxes = (one.to(images.device) for one in outputs)
        return {LOGITS: logits, BOXES: boxes}

    def _run(self, images: Tensor) -> list[Tensor]:
        found = self._session.run([LOGITS, BOXES], {INPUT: images.contiguous().numpy()})
        return [torch.from_numpy(one) for one in found]


def open_onnx(
    path: Path,
    threads: int | None = None,
    key: str | None = None,
    stated: OnnxMetadata | None = None,
) -> OnnxDetector:
    """A detector in an ONNX file, as `rtdetr export` writes them.

    Of a quantized one what its Q/DQ nodes say is computed in float32: ONNX Runtime's own integer
    kernels round otherwise, and not as other runtimes do.

    Args:
        threads: CPU threads it runs with; None: as many as torch.
        key: of a file that is encrypted.
        stated: what is known of a file that says nothing of itself; None: that is an error.

    Raises:
        RequestError: the file is missing, damaged, encrypted and not with this key, or no such
            detector; says what is not as it should be.
    """
    if not path.is_file():
        raise RequestError(f"ONNX file {path} does not exist")
    try:
        with decrypted(path, key) as source:
            model = str(source) if isinstance(source, Path) else source.read()
            session = _session(model, threads)
    except UserError:
        raise
    except Exception as error:  # its own kinds, which have nothing in common but this
        reason = str(error).strip().splitlines()[0]
        raise RequestError(f"{path} is no model that ONNX Runtime can run: {reason}") from None
    return _described(str(path), session, stated)


def open_graph(model: bytes) -> OnnxDetector:
    """As `open_onnx`, of a graph in memory, with all that is in such a file."""
    return _described("the graph", _session(model, None), None)


def _session(model: str | bytes, threads: int | None) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return onnxruntime.InferenceSession(
        model,
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=_WRONG_FOR_FP8,
    )


def _described(
    name: str, session: onnxruntime.InferenceSession, stated: OnnxMetadata | None
) -> OnnxDetector:
    shapes = {
        one.name: tuple(one.shape)
        for one in (*session.get_inputs(), *session.get_outputs())
        if one.type == "tensor(float)"
    }
    properties = session.get_modelmeta().custom_metadata_map
    known = stated if says_nothing(properties) else None
    metadata = known or read_metadata(properties, name)
    match [shapes.get(name) for name in (INPUT, LOGITS, BOXES)]:
        case [
            (batch, 3, int(height), int(width)),
            (_, int(queries), int(classes)),
            (_, int(again), 4),
        ] if queries == again and len(session.get_inputs()) == 1:
            fixed = batch if isinstance(batch, int) else None
            return OnnxDetector(metadata, (height, width), fixed, queries, classes, session)
    said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    raise RequestError(
        f"{name} has {said or 'no float32 tensors'}; a detector has {INPUT} [batch, 3, height, "
        f"width], {LOGITS} [batch, queries, classes] and {BOXES} [batch, queries, 4], with nothing "
        "open but the batch"
    )
