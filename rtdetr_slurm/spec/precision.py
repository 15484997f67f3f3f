"""Which number formats can be written into the graph of an engine. Pure, as rules.py."""

from __future__ import annotations

from collections.abc import Iterator

from rtdetr_slurm.model_check import Problem
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.fields import users
from rtdetr_slurm.yaml_source import show


def layers_precision_can_be_written(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """ONNX has bfloat16 products from opset 22 on, and integer ones that TensorRT does not read."""
    tensorrt = experiment.gen_trt_engine.tensorrt
    allowed = ("fp32", "fp16", *(("int8",) if tensorrt.data_type == "INT8" else ()))
    for index, entry in enumerate(tensorrt.layers_precision):
        if action in users("gen_trt_engine") and entry.rpartition(":")[2] not in allowed:
            yield Problem(
                ("gen_trt_engine", "tensorrt", "layers_precision", index),
                f"found {show(entry)}; allowed with data_type {tensorrt.data_type}: "
                f"{', '.join(allowed)}",
                also=(("gen_trt_engine", "tensorrt", "data_type"),),
            )


def int8_has_images(experiment: ExperimentConfig, action: str) -> Iterator[Problem]:
    """An ONNX file that is there already may have its codes; one that a stage before exports of a
    checkpoint that was not quantized has none."""
    config, tensorrt = experiment.gen_trt_engine, experiment.gen_trt_engine.tensorrt
    calibration, dataset = tensorrt.calibration, experiment.dataset
    given = (
        calibration.cal_image_dir
        or calibration.cal_cache_file
        or dataset.quant_calibration_data_sources
    )
    coded = config.onnx_file or experiment.export.is_quantized
    if action in users("gen_trt_engine") and tensorrt.data_type == "INT8" and not (given or coded):
        yield Problem(
            ("gen_trt_engine", "tensorrt", "calibration", "cal_image_dir"),
            "missing, and so is dataset.quant_calibration_data_sources; data_type INT8 needs "
            "images to calibrate on",
            also=(("gen_trt_engine", "tensorrt", "data_type"),),
        )
