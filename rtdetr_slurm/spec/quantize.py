"""`quantize`: post-training quantization."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from rtdetr_slurm.contract import Infer
from rtdetr_slurm.model_check import Matches
from rtdetr_slurm.spec.fields import QUANTIZE, OptionalText, Section, field

_ALIASES = {"float8_e4m3fn": "fp8_e4m3fn", "float8_e5m2": "fp8_e5m2"}
QuantDtype = Annotated[
    Literal["int8", "fp8_e4m3fn", "fp8_e5m2", "native", "float8_e4m3fn", "float8_e5m2", ""],
    AfterValidator(lambda name: _ALIASES.get(name, name)),
]
"""Number format of a quantized tensor; PyTorch's spellings are read as TAO's."""

Device = Annotated[
    str, Matches(r"^(cuda|cpu|trt|cuda:[0-9]+)$", "cuda, cpu, trt, or one GPU such as cuda:1")
]


class TensorRule(Section):
    """How weights, or activations, are quantized."""

    dtype: QuantDtype = field(
        "",
        honoured_by=QUANTIZE,
        required_by=QUANTIZE,
        description="Number format; native leaves them as they are.",
    )
    quant_axis: int | None = field(
        None,
        idle="weights have a scale for each output channel, activations one for all",
        description="Axis with a scale of its own per index: 0 or null for weights, null for "
        "activations.",
    )
    observer_or_fake_quant: OptionalText = field(
        "", idle="no backend has observers", description="Observer class to collect ranges with."
    )
    observer_or_fake_quant_kwargs: dict[str, Any] = field(
        {}, idle="no backend has observers", description="Its options."
    )


class LayerRule(Section):
    """A rule for the layers that match a pattern."""

    module_name: OptionalText = field(
        "",
        required_by=QUANTIZE,
        description="Pattern (* and ?) for the dotted name of a layer, or for its class. Layers of "
        "decoder.* and encoder.encoder.* are meant only by a pattern that begins with that.",
    )
    weights: TensorRule | None = field(
        None, description="How the weights are quantized; null leaves them."
    )
    activations: TensorRule | None = field(
        None, description="How the activations are quantized; null leaves them."
    )


class QuantizeConfig(Section):
    """Quantization."""

    model_path: OptionalText = field(
        "",
        path="read",
        holds="model",
        honoured_by=QUANTIZE,
        inferred=Infer.PARENT_MODEL,
        takes_if=("backend", "modelopt.onnx", "onnx"),
        required_by=QUANTIZE,
        description="Checkpoint (.pth) to quantize, or an ONNX file for modelopt.onnx.",
    )
    backend: Literal["modelopt.pytorch", "torchao", "modelopt.onnx"] = field(
        "torchao", honoured_by=QUANTIZE, description="Library that does it."
    )
    mode: Literal["static_ptq", "weight_only_ptq"] = field(
        "weight_only_ptq",
        honoured_by=QUANTIZE,
        description="Quantize the weights alone, or by calibration the activations too.",
    )
    algorithm: Literal["minmax", "max", "entropy", "awq_clip", "awq_lite", "awq_full", "rtn_dq"] = (
        field(
            "minmax",
            honoured_by=QUANTIZE,
            description="How ranges are chosen: minmax and max take the largest magnitude, entropy "
            "what keeps most information of the activations. Others are for 4 bits.",
        )
    )
    layers: list[LayerRule] = field(
        [],
        honoured_by=QUANTIZE,
        automl="disabled",
        description="Rules in order; a later one overrides an earlier one. Empty: int8 for *.",
    )
    skip_names: list[str] = field(
        [],
        honoured_by=QUANTIZE,
        automl="disabled",
        description="Patterns of layers to leave out, whatever `layers` says.",
    )
    device: Device = field(
        "cuda",
        honoured_by=QUANTIZE,
        description="Device to calibrate and score on; with cpu a job asks for no GPU.",
    )
    backend_kwargs: dict[str, Any] = field(
        {}, automl="disabled", description="Further arguments for the library."
    )
    results_dir: OptionalText = field(
        "",
        path="write",
        inferred=Infer.OUTPUT_DIR,
        honoured_by=QUANTIZE,
        description="Output folder; empty means results_dir/quantize.",
    )

    @property
    def on_cpu(self) -> bool:
        """Whether it wants no GPU."""
        return self.device == "cpu"

    @property
    def gpu_id(self) -> int:
        """The GPU that it wants."""
        return int(self.device.partition(":")[2] or 0)
