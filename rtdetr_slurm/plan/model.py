"""The plan as plain frozen values. Standard library only: compute nodes read it from run.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtdetr_slurm.errors import RequestError

DependencyKind = Literal["afterok", "afterany", "aftercorr"]
"""Slurm's words: after success; after the end, whatever it was; task by task of two arrays."""


@dataclass(frozen=True)
class Resources:
    """What one stage asks its scheduler for.

    Attributes:
        nodes: number of nodes, one launcher task on each.
        gpu_ids: indices of the GPUs (on CPU: of the processes) of every node; none at all for a
            stage that needs none. On Slurm they count within the allocation, 0..n-1; on the local
            machine they are the devices themselves.
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
    """What the stage run and the node wrapper need to know about the site.

    Attributes:
        scheduler: `slurm` or `local`.
        accelerator: `cuda` or `cpu`; None (local only): whatever the engine finds, which it says.
        signal_lead_s: seconds between the warning signal and the end of the time limit.
        env: host environment variables for the engine: name to value, None for the host's own.
        scratch: node-local folder for temporary files, expanded on the node; None: the node's own.
        python: that runs the program where there is no container; None: this very one.
    """

    scheduler: str
    accelerator: str | None
    signal_lead_s: int
    requeue: bool
    network_interface: str | None = None
    scratch: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    module_lines: tuple[str, ...] = ()
    wckey: str | None = None
    python: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where something comes from: a stage of this run or, with `run`, of another one.

    Attributes:
        run: absolute path of the other run's folder.
    """

    stage: str
    run: str | None = None

    def __str__(self) -> str:
        return self.stage if self.run is None else f"{self.stage} of {Path(self.run).name}"


@dataclass(frozen=True)
class Dependency:
    """What must have ended before a stage starts."""

    on: Origin
    kind: DependencyKind = "afterok"


@dataclass(frozen=True)
class Array:
    """A stage of several equal tasks, 0..size-1.

    Attributes:
        throttle: at most so many at the same time; None: all.
    """

    size: int
    throttle: int | None = None


@dataclass(frozen=True)
class Input:
    """A field of the spec that is filled when the stage starts.

    Attributes:
        field: dotted path in the spec.
        function: how its value is found: `parent_model` (the best checkpoint of `origin`),
            `output_dir` (the stage's own results folder), `fetch` (the file behind `uri`).
        origin: the stage that the value comes from, if it comes from one.
        uri: the address that it comes from, if it comes from one.
    """

    field: str
    function: str
    origin: Origin | None = None
    uri: str | None = None

    @property
    def source(self) -> str:
        """Where the value comes from, in words."""
        return " of ".join(str(part) for part in (self.function, self.origin or self.uri) if part)


@dataclass(frozen=True)
class Stage:
    """One job, or one array of jobs: an action with its resources and its place in the chain.

    Attributes:
        name: unique in its plan.
        container: None runs it on the host.
        command: what runs, in a private folder that holds `spec.yaml`.
        results_dir: absolute folder of the action's results; an array's tasks have folders in it.
    """

    name: str
    action: str
    resources: Resources
    launch: Launch
    container: Container | None
    command: tuple[str, ...]
    results_dir: str
    depends_on: tuple[Dependency, ...] = ()
    array: Array | None = None
    inputs: tuple[Input, ...] = ()

    def tasks(self) -> list[StageTask]:
        """Its array's tasks, or itself as the only one."""
        if self.array is None:
            return [StageTask(self)]
        return [StageTask(self, index) for index in range(self.array.size)]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Stage:
        """Rebuild a stage from `to_json()`'s (possibly JSON round-tripped) output."""
        values = dict(data)
        values["resources"] = _make(Resources, data["resources"])
        values["launch"] = _make(Launch, data["launch"])
        values["container"] = _container_from_json(data["container"])
        values["command"] = tuple(data["command"])
        values["depends_on"] = tuple(
            Dependency(Origin(**d["on"]), d["kind"]) for d in data["depends_on"]
        )
        values["array"] = None if data["array"] is None else Array(**data["array"])
        values["inputs"] = tuple(
            Input(i["field"], i["function"], i["origin"] and Origin(**i["origin"]), i["uri"])
            for i in data["inputs"]
        )
        return Stage(**values)


@dataclass(frozen=True)
class StageTask:
    """What one job runs: a stage, or one task of its array."""

    stage: Stage
    index: int | None = None

    @property
    def name(self) -> str:
        """`train`, or `train.4` of an array."""
        return self.stage.name if self.index is None else f"{self.stage.name}.{self.index}"

    @property
    def results_dir(self) -> Path:
        folder = Path(self.stage.results_dir)
        return folder if self.index is None else folder / str(self.index)

    def job_id(self, submitted: str) -> str:
        """Its job id, from the one that the stage was submitted as."""
        return submitted if self.index is None else f"{submitted}_{self.index}"

    def event_facts(self, job_id: str | None) -> dict[str, Any]:
        """What every event about this task and its job, where it has one, holds."""
        task = {} if self.index is None else {"task": self.index}
        job = {} if job_id is None else {"job_id": job_id}
        return {"stage": self.stage.name, **job, **task}


@dataclass(frozen=True)
class Plan:
    """The stages of one run, in an order that respects their dependencies, and what the user
    should know about them."""

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()

    def stage(self, name: str) -> Stage:
        """The stage called `name`.

        Raises:
            RequestError: there is none; names those there are.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages)
        raise RequestError(f"there is no stage '{name}'; there are {names}")

    def tasks(self) -> Iterator[StageTask]:
        """Every stage, arrays task by task."""
        return (task for stage in self.stages for task in stage.tasks())

    def to_json(self) -> dict[str, Any]:
        return {"stages": [s.to_json() for s in self.stages], "notes": list(self.notes)}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Plan:
        stages = tuple(Stage.from_json(s) for s in data["stages"])
        return Plan(stages=stages, notes=tuple(data["notes"]))


def _make(cls: type[Any], data: Mapping[str, Any]) -> Any:
    """A dataclass from JSON, lists as the tuples they were."""
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in data.items()})


def _container_from_json(data: Mapping[str, Any] | None) -> Container | None:
    if data is None:
        return None
    return Container(
        image=Image(**data["image"]),
        binds=tuple(Bind(**b) for b in data["binds"]),
        apptainer=data["apptainer"],
        flags=tuple(data["flags"]),
    )
