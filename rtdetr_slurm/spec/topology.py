"""Nodes and GPUs of an action."""

from __future__ import annotations

from dataclasses import dataclass

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.experiment import ExperimentConfig


@dataclass(frozen=True)
class Topology:
    """Nodes, and GPUs on each, that an action asks for."""

    num_nodes: int
    num_gpus: int
    gpu_ids: tuple[int, ...]


def read_topology(experiment: ExperimentConfig, action: str) -> Topology:
    """What `action` asks for; one GPU where its section does not say."""
    row = ACTIONS[action]
    if row.topology is None:
        return Topology(1, 1, (getattr(getattr(experiment, row.section), "gpu_id", 0),))
    section = getattr(experiment, row.topology)
    return Topology(section.num_nodes, section.num_gpus, tuple(section.gpu_ids))
