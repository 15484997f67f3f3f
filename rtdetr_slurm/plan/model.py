"""The plan as plain frozen values. Standard library only: compute nodes read it from run.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Resources:
    """What one stage asks its scheduler for.

    Attributes:
        nodes: number of nodes, one launcher task on each.
        gpu_ids: indices of the GPUs (on CPU: of the processes) of every node. On Slurm they count
            within the allocation, 0..n-1; on the local machine they are the devices themselves.
        gpu_request: how GPUs are asked for: `gpus-per-node`, `gres`, or `none`.
        time_min: wall-clock limit in minutes; None leaves it to the partition.
        mem_gb: memory per node in GiB; None leaves it to the cluster.
    """

    nodes: int
    gpu_ids: tuple[int, ...]
    gpu_request: str = "none"
    gpu_type: str | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    time_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None

    @property
    def gpus_per_node(self) -> int:
        return len(self.gpu_ids)


@dataclass(frozen=True)
class Bind:
    """A host path that the container sees under `target`."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Image:
    """The container image and what pins it.

    Attributes:
        path: absolute path of a SIF file, or of a sandbox folder.
        sha256: digest that the site profile demands; None when it demands none.
    """

    path: str
    sha256: str | None = None


@dataclass(frozen=True)
class Container:
    """How Apptainer is called."""

    image: Image
    binds: tuple[Bind, ...]
    apptainer: str = "apptainer"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Launch:
    """What the controller and the node wrapper need to know about the site.

    Attributes:
        scheduler: `slurm` or `local`.
        accelerator: `cuda` or `cpu`; None (local only): whatever the engine finds, which it says.
        signal_lead_s: seconds between the warning signal and the end of the time limit.
        env: names of host environment variables that are let into the container.
        set_env: names and values of further variables of the job; they win over `env`.
        python: absolute path of the Python to run with where there is no container; None: the one
            that runs the controller.
        scratch: node-local folder for temporary files, expanded on the node; None: the node's own.
    """

    scheduler: str
    accelerator: str | None
    signal_lead_s: int
    requeue: bool
    network_interface: str | None = None
    scratch: str | None = None
    env: tuple[str, ...] = ()
    set_env: tuple[tuple[str, str], ...] = ()
    python: str | None = None
    module_lines: tuple[str, ...] = ()
    wckey: str | None = None


@dataclass(frozen=True)
class Stage:
    """One job: an action with its resources, container, command and place in the chain.

    Attributes:
        command: what runs in the container, in a private folder that holds `spec.yaml`.
        results_dir: absolute folder of the action's results.
        depends_on: names of the stages that must end well before this one starts.
    """

    name: str
    action: str
    resources: Resources
    launch: Launch
    container: Container | None
    command: tuple[str, ...]
    results_dir: str
    depends_on: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Stage:
        """Rebuild a stage from `to_json()`'s (possibly JSON round-tripped) output."""
        resources = dict(data["resources"])
        resources["gpu_ids"] = tuple(resources["gpu_ids"])
        launch = dict(data["launch"])
        for key in ("env", "module_lines"):
            launch[key] = tuple(launch[key])
        launch["set_env"] = tuple((name, value) for name, value in launch["set_env"])
        return Stage(
            name=data["name"],
            action=data["action"],
            resources=Resources(**resources),
            launch=Launch(**launch),
            container=_container_from_json(data["container"]),
            command=tuple(data["command"]),
            results_dir=data["results_dir"],
            depends_on=tuple(data["depends_on"]),
        )


@dataclass(frozen=True)
class Plan:
    """The stages of one run, in order, and what the user should know about them."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"stages": [s.to_json() for s in self.stages], "notes": list(self.notes)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        stages = tuple(Stage.from_json(s) for s in data["stages"])
        return Plan(stages=stages, notes=tuple(data["notes"]))


def _container_from_json(data: Mapping[str, Any] | None) -> Container | None:
    if data is None:
        return None
    return Container(
        image=Image(**data["image"]),
        binds=tuple(Bind(**b) for b in data["binds"]),
        apptainer=data["apptainer"],
        flags=tuple(data["flags"]),
    )
