"""`export`: a checkpoint as ONNX."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticKnownError

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.spec.fields import OptionalText, Section, Side, field


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
        inferred=Infer.PARENT_MODEL,
        required_by=("export",),
        description="Checkpoint (.pth) to export.",
    )
    onnx_file: OptionalText = field(
        "",
        path="write",
        inferred=Infer.CREATE_ONNX_FILE,
        description="ONNX file to write; it must not exist yet. Empty means rtdetr.onnx in the "
        "output folder.",
    )
    format: Literal["onnx", "xdl"] = field("onnx", description="File format.")
    input_height: Side = field(640, description="Height of the network's input.")
    input_width: Side = field(640, description="Width of the network's input.")
    input_channel: Annotated[Literal[1, 3], BeforeValidator(_no_bool)] = field(
        3, description="Colour channels of the network's input."
    )
    batch_size: int = field(
        -1, ge=-1, description="Batch size of the network; -1 leaves it open until run time."
    )
    opset_version: int = field(17, ge=1, description="ONNX operator set.")
    gpu_id: int = field(0, ge=0, description="GPU to export on.")
    on_cpu: bool = field(False, description="Export on the CPU.")
    is_quantized: bool = field(
        False, description="The checkpoint holds a quantized model, made as `quantize` says."
    )
    serialize_nvdsinfer: bool = field(
        False, description="Also write the labels and the configuration for DeepStream."
    )
    verbose: bool = field(False, description="Let the exporter print what it does.")
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        description="Output folder; empty means results_dir/export.",
    )
