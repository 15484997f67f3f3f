"""What may be asked: strict models of the spec, and how a spec file becomes one of them."""

from rtdetr_slurm.model_check import in_lines
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.spec.load import (
    LoadedSpec,
    check_for_any_image,
    dump_spec,
    load_spec,
)
from rtdetr_slurm.spec.topology import Topology
from rtdetr_slurm.yaml_source import to_yaml

__all__ = [
    "ExperimentConfig",
    "LoadedSpec",
    "Topology",
    "check_for_any_image",
    "dump_spec",
    "in_lines",
    "load_spec",
    "to_yaml",
]
