"""`gen_trt_engine`: a TensorRT engine from an ONNX file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.model_check import Matches
from rtdetr_slurm.spec.fields import OptionalText, Section, field


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class CalibrationConfig(Section):
    """Calibration of INT8."""

    cal_image_dir: list[str] = field(
        [],
        path="read",
        holds="images",
        automl="disabled",
        description="Images to calibrate on, as infer_data_sources.image_dir has them.",
    )
    cal_cache_file: OptionalText = field(
        "",
        path="update",
        inferred=Infer.CREATE_CAL_CACHE,
        description="File that keeps the calibration of one ONNX file; read instead of calibrating "
        "if it exists. Empty means rtdetr.cal in the output folder.",
    )
    cal_batch_size: int = field(1, ge=1, popular=True, description="Images per calibration batch.")
    cal_batches: int = field(1, ge=1, popular=True, description="Number of calibration batches.")

    @property
    def images(self) -> int:
        """That calibrate."""
        return self.cal_batch_size * self.cal_batches


LayerPrecision = Annotated[
    str,
    Matches(
        r"^.+:(fp32|fp16|bf16|int32|int8)$",
        "the name of a layer, a colon, and fp32, fp16, bf16, int32 or int8",
    ),
]


class TensorRtConfig(Section):
    """TensorRT's builder."""

    data_type: Annotated[Literal["FP32", "FP16", "INT8"], BeforeValidator(_upper)] = field(
        "FP32",
        description="Number format of the engine's computations: what "
        "loses accuracy stays in FP32 with FP16, and in FP16 with INT8.",
    )
    workspace_size: int = field(1024, ge=0, description="Scratch memory for the builder in MB.")
    min_batch_size: int = field(1, ge=1, popular=True, description="Smallest batch it can take.")
    opt_batch_size: int = field(
        1, ge=1, popular=True, description="Batch size it is made fastest for."
    )
    max_batch_size: int = field(4, ge=1, description="Largest batch it can take.")
    layers_precision: list[LayerPrecision] = field(
        [],
        automl="disabled",
        description="Layers with a number format of their own, written name:format: fp32, fp16, or "
        "int8 where data_type is INT8. A name is a node's, or a dotted one of a layer or module, "
        "with * and ?; the last entry that means a layer counts.",
    )
    calibration: CalibrationConfig = field(
        CalibrationConfig, automl="disabled", description="INT8 calibration."
    )


class GenTrtEngineConfig(Section):
    """Engine building."""

    onnx_file: OptionalText = field(
        "",
        path="read",
        holds="onnx",
        inferred=Infer.PARENT_MODEL,
        takes="onnx",
        required_by=("gen_trt_engine",),
        description="ONNX file to build from.",
    )
    trt_engine: OptionalText = field(
        "",
        path="new",
        inferred=Infer.CREATE_ENGINE_FILE,
        description="Engine file to write; it must not exist yet. Empty means rtdetr.engine in the "
        "output folder.",
    )
    batch_size: int = field(
        -1, ge=-1, popular=True, description="Fixed batch size; -1 takes the ONNX file's."
    )
    gpu_id: int = field(0, ge=0, popular=True, description="GPU to build on, and so to build for.")
    timing_cache: OptionalText = field(
        "",
        path="update",
        description="File that keeps kernel timings, so that the next build is faster.",
    )
    verbose: bool = field(False, description="Let TensorRT print what it does.")
    tensorrt: TensorRtConfig = field(
        TensorRtConfig, automl="disabled", description="Builder settings."
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        description="Output folder; empty means results_dir/gen_trt_engine.",
    )
