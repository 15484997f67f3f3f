"""ONNX to ONNX with its precision written in, for networks that TensorRT takes as they are."""

from rtdetr_slurm.deploy.precision.typed import Typed, typed

__all__ = ["Typed", "typed"]
