"""The RT-DETR network in plain PyTorch (Zhao et al. 2023, arXiv:2304.08069)."""

from rtdetr_slurm.engine.models.rtdetr import RTDETR, build_model
from rtdetr_slurm.engine.models.types import Outputs

__all__ = ["RTDETR", "Outputs", "build_model"]
