"""`export`: a checkpoint as ONNX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import EXPORT, OptionalText, Section, Side, field

OPSETS = range(17, 20)
"""ONNX operator sets that can be written."""


def _no_bool(value: Any) -> Any:
    # `True == 1` makes it a member of Literal[1, 3] otherwise.
    if isinstance(value, bool | float):
        raise PydanticKnownError("int_type")
    return value


class ExportConfig(Section):
    """A checkpoint as ONNX."""

    checkpoint: OptionalText = field(
        "",
        path="read",
        holds="weights",
        honoured_by=EXPORT,
        inferred=Infer.PARENT_MODEL,
        takes_if=("is_quantized", True, "quantized"),
        required_by=("export",),
        description="Weights to export: a checkpoint of this engine or of TAO, or a published "
        "RT-DETR in the official or the Hugging Face layout (.pth, .safetensors).",
    )
    onnx_file: OptionalText = field(
        "",
        path="new",
        inferred=Infer.CREATE_ONNX_FILE,
        honoured_by=EXPORT,
        description="ONNX file to write; it must not exist yet. Empty means rtdetr.onnx in the "
        "output folder.",
    )
    format: Literal["onnx", "xdl"] = field(
        "onnx",
        no_effect_in=EXPORT,
        description="File format; TAO's schema lists xdl, which is refused.",
    )
    input_height: Side = field(
        640, honoured_by=EXPORT, description="Height of the network's input."
    )
    input_width: Side = field(640, honoured_by=EXPORT, description="Width of the network's input.")
    input_channel: Annotated[Literal[1, 3], BeforeValidator(_no_bool)] = field(
        3, no_effect_in=EXPORT, description="Colour channels of the network's input: 3, RGB."
    )
    batch_size: int = field(
        -1,
        ge=-1,
        honoured_by=EXPORT,
        description="Batch size of the network; -1 leaves it open until run time.",
    )
    opset_version: int = field(
        17, ge=1, honoured_by=EXPORT, description="ONNX operator set: 17, 18 or 19."
    )
    gpu_id: int = field(
        0,
        ge=0,
        honoured_by=EXPORT,
        description="GPU that the detector runs on when it is compared with the file.",
    )
    on_cpu: bool = field(
        False, honoured_by=EXPORT, description="Work without a GPU; a job then asks for none."
    )
    is_quantized: bool = field(
        False,
        honoured_by=EXPORT,
        description="The checkpoint is one that `quantize` has left, and says itself how it is "
        "quantized.",
    )
    serialize_nvdsinfer: bool = field(
        False,
        honoured_by=EXPORT,
        description="Also write the labels and the configuration for DeepStream.",
    )
    verbose: bool = field(
        False, honoured_by=EXPORT, description="Let the exporter print what it does."
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=EXPORT,
        description="Output folder; empty means results_dir/export.",
    )
