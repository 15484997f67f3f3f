"""Nodes and GPUs of an action."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.spec.experiment import ExperimentConfig
from rtdetr_slurm.yaml_source import show

SECTIONS = tuple(dict.fromkeys(row.topology for row in ACTIONS.values() if row.topology))
"""Sections that give num_nodes, num_gpus and gpu_ids."""


@dataclass(frozen=True)
class Topology:
    """Nodes, and GPUs on each, that an action asks for.

    Attributes:
        on_cpu: the action wants no GPU; its one process is counted in their place.
    """

    num_nodes: int
    num_gpus: int
    gpu_ids: tuple[int, ...]
    on_cpu: bool = False


def read_topology(experiment: ExperimentConfig, action: str) -> Topology:
    """What `action` asks for; one GPU where its section does not say."""
    row = ACTIONS[action]
    if row.topology is None:
        section = getattr(experiment, row.section)
        on_cpu = getattr(section, "on_cpu", False)
        return Topology(1, 1, (0 if on_cpu else getattr(section, "gpu_id", 0),), on_cpu)
    section = getattr(experiment, row.topology)
    return Topology(section.num_nodes, section.num_gpus, tuple(section.gpu_ids))


def complete_gpus(data: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Of num_gpus and gpu_ids, let the one that is given alone decide the other.

    Args:
        data: of a spec, as it was given.

    Returns:
        The data with both, and for each section that was completed a line that says so.
    """
    completed, notes = dict(data), {}
    for name in SECTIONS:
        section = data.get(name)
        if not isinstance(section, dict):
            continue
        count, ids = section.get("num_gpus"), section.get("gpu_ids")
        if "gpu_ids" not in section and type(count) is int and count > 1:
            ids = list(range(count))
            notes[name] = f"{name}.gpu_ids: {show(ids)}, as {name}.num_gpus is {count}"
        elif "num_gpus" not in section and isinstance(ids, list) and len(ids) > 1:
            count = len(ids)
            notes[name] = f"{name}.num_gpus: {count}, as {name}.gpu_ids is {show(ids)}"
        else:
            continue
        completed[name] = {**section, "num_gpus": count, "gpu_ids": ids}
    return completed, notes
