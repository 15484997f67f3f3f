"""The plan as plain frozen values. Standard library only: compute nodes read it from run.json."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rtdetr_slurm.actions import EngineName, Model, get_action
from rtdetr_slurm.contract import CHECKPOINT_CHOICE
from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.search import Search
from rtdetr_slurm.plan.staging import Staging, Upload

STAGE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)?")
"""Of a stage: a folder name that cannot be taken for a task of an array (`train.4`)."""

_MOST_NODES, _MOST_TASKS = 100_000, 10_000
"""More is no cluster and no sweep: a plan that is read from a file must not keep its reader busy
for hours."""

Scheduler = Literal["slurm", "local"]
DependencyKind = Literal["afterok", "afterany", "aftercorr"]
"""Slurm's words: after success; after the end, whatever it was; task by task of two arrays."""


@dataclass(frozen=True)
class Mail:
    """What Slurm tells somebody by mail.

    Attributes:
        types: Slurm's words: BEGIN, END, FAIL.
    """

    user: str
    types: tuple[str, ...]

    @property
    def of_further_starts(self) -> tuple[str, ...]:
        """Those that are left when the job has begun once."""
        return tuple(kind for kind in self.types if kind != "BEGIN")


@dataclass(frozen=True)
class Resources:
    """What one stage asks its scheduler for.

    Attributes:
        nodes: number of nodes, one launcher task on each.
        gpu_ids: indices of the GPUs (on CPU: of the processes) of every node; none at all for a
            stage that needs none. On Slurm they count within the allocation, 0..n-1; on the local
            machine they are the devices themselves.
        gpu_request: how GPUs are asked for: `gpus-per-node`, `gres`, or `none`.
        time_min: wall-clock limit in minutes, on Slurm whole ones; None leaves it to the partition.
        mem_gb: memory per node in GiB; None leaves it to the cluster.
        exclusive: whether no other job may be on its nodes.
    """

    nodes: int
    gpu_ids: tuple[int, ...]
    gpu_request: str = "none"
    gpu_type: str | None = None
    cpus_per_task: int | None = None
    mem_gb: float | None = None
    time_min: float | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    mail: Mail | None = None
    exclusive: bool = False

    def __post_init__(self) -> None:
        _within("nodes", self.nodes, _MOST_NODES)

    @property
    def gpus_per_node(self) -> int:
        return len(self.gpu_ids)


@dataclass(frozen=True)
class Bind:
    """A host path that the container sees under `target`."""

    source: str
    target: str
    read_only: bool = False

    def mount_option(self) -> str:
        """Apptainer's `--mount` value; its fields are CSV, so a path may hold ',' and ':'."""
        fields = ["type=bind", f"source={self.source}", f"destination={self.target}"]
        fields += ["ro"] if self.read_only else []
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(fields)
        return text.getvalue().removesuffix("\n")


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
class Endurance:
    """What a job goes through before it is given up; as `job` in the spec has it.

    Attributes:
        max_requeues: times it may go back to the queue at all.
        max_infra_retries: times of those because the cluster failed.
        max_hours: that all of its starts may take together; None: no limit.
        hang_minutes: without a step that are a hang; 0: nobody looks.
    """

    max_requeues: int = 200
    max_infra_retries: int = 2
    max_hours: float | None = None
    hang_minutes: float = 25.0


@dataclass(frozen=True)
class Launch:
    """What the stage run and the node wrapper need to know about the site.

    Attributes:
        engine: whose image it is: this project's, or NVIDIA TAO's.
        accelerator: `cuda` or `cpu`; None (local only): whatever the engine finds, which it says.
        signal_lead_s: seconds between the warning signal and the end of the time limit.
        env: host environment variables for the engine: name to value, None for the host's own.
        secrets: names of variables that come from the environment of `submit` by a private file.
        scratch: node-local folder for temporary files, expanded on the node; None: the node's own.
        python: that runs the program where there is no container; None: this very one.
        endurance: what the job goes through before it is given up.
    """

    scheduler: Scheduler
    accelerator: str | None
    signal_lead_s: int
    requeue: bool
    network_interface: str | None = None
    scratch: str | None = None
    env: Mapping[str, str | None] = field(default_factory=dict)
    module_lines: tuple[str, ...] = ()
    wckey: str | None = None
    python: str | None = None
    secrets: tuple[str, ...] = ()
    engine: EngineName = "rtdetr"
    endurance: Endurance = Endurance()


@dataclass(frozen=True)
class Origin:
    """Where something comes from: a stage of this run or, with `run`, of another one.

    Attributes:
        run: absolute path of the other run's folder.
        trial: one training of a search there, by its number.
    """

    stage: str
    run: str | None = None
    trial: int | None = None

    def __str__(self) -> str:
        if self.run is None:
            return self.stage
        what = self.stage if self.trial is None else f"trial {self.trial}"
        return f"{what} of {Path(self.run).name}"


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

    def __post_init__(self) -> None:
        _within("size", self.size, _MOST_TASKS)


@dataclass(frozen=True)
class Input:
    """A field of the spec that is filled when the stage starts.

    Attributes:
        field: dotted path in the spec.
        function: how its value is found (contract.Infer).
        origin: the stage that the value comes from, if it comes from one.
        uri: the address, or the archive, that it comes from, if it comes from one; the origin is
            then the stage that brings it.
        choice: which of the origin's checkpoints; None: the one that the function takes by itself.
    """

    field: str
    function: str
    origin: Origin | None = None
    uri: str | None = None
    choice: str | None = None

    def __post_init__(self) -> None:
        if self.choice is not None and not re.fullmatch(CHECKPOINT_CHOICE, self.choice):
            raise RequestError(f"{self.choice!r} chooses no checkpoint")

    @property
    def source(self) -> str:
        """Where the value comes from, in words."""
        how = self.function if self.choice is None else f"{self.function} ({self.choice})"
        return " of ".join(str(part) for part in (how, self.uri or self.origin) if part)


@dataclass(frozen=True)
class Stage:
    """One job, or one array of jobs: an action with its resources and its place in the chain.

    Attributes:
        name: unique in its plan.
        container: None runs it on the host.
        command: what runs, in a private folder that holds `spec.yaml`.
        results_dir: absolute folder of the action's results; an array's tasks have folders in it.
        target: the kind of GPU that it is for, where the site lists some; it ends the name.
        search: what its tasks do instead of running the action once.
        best_of: the stage before that searches, of which this one finds the best trial; its action
            is that one's, and it runs on the host.
        staging: what it brings for those that come after it, instead of running an action; its
            action is the plan's first one.
        upload: where it puts a copy of what the others have left; its action is that one, too.
        local_copy: fields whose folders every node copies to its scratch before it begins.
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
    target: str | None = None
    search: Search | None = None
    best_of: str | None = None
    staging: Staging | None = None
    upload: Upload | None = None
    local_copy: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The name becomes a folder, and more: it is never a path, and no option of a command.
        if not STAGE_NAME.fullmatch(self.name):
            raise RequestError(f"{self.name!r} is no name of a stage")
        if not Path(self.results_dir).is_absolute():
            raise RequestError(f"results_dir {self.results_dir!r} is not absolute")
        get_action(self.action)

    @property
    def runs_action(self) -> bool:
        """Whether its action is run at all, be it once or for each trial of a search."""
        return self.best_of is None and self.staging is None and self.upload is None

    @property
    def leaves(self) -> Model | None:
        """The form of the model that it leaves; None: none."""
        moves_files = self.staging is not None or self.upload is not None
        return None if moves_files else get_action(self.action).leaves

    def tasks(self) -> list[StageTask]:
        """Its array's tasks, or itself as the only one."""
        if self.array is None:
            return [StageTask(self)]
        return [StageTask(self, index) for index in range(self.array.size)]

    def origins(self) -> list[Origin]:
        """Whatever it waits for or takes something from."""
        taken = [one.origin for one in self.inputs if one.origin is not None]
        return [*(dependency.on for dependency in self.depends_on), *taken]


@dataclass(frozen=True)
class StageTask:
    """What one job runs: a stage, or one task of its array; or a trial, which a task runs.

    Attributes:
        trial: number of the trial, of a stage that searches.
    """

    stage: Stage
    index: int | None = None
    trial: int | None = None

    @property
    def name(self) -> str:
        """`train`, or `train.4` of an array, or `train.trial.7`, which is no stage's name."""
        if self.trial is not None:
            return f"{self.stage.name}.trial.{self.trial}"
        return self.stage.name if self.index is None else f"{self.stage.name}.{self.index}"

    @property
    def results_dir(self) -> Path:
        folder = Path(self.stage.results_dir)
        if self.trial is not None:
            assert self.stage.search is not None
            return self.stage.search.trials_folder / str(self.trial) / self.stage.action
        return folder if self.index is None else folder / str(self.index)

    def job_id(self, submitted: str) -> str:
        """Its job id, from the one that the stage was submitted as."""
        return submitted if self.index is None else f"{submitted}_{self.index}"

    def event_facts(self, job_id: str | None) -> dict[str, Any]:
        """What every event about this task and its job, where it has one, holds."""
        job = {} if job_id is None else {"job_id": job_id}
        if self.trial is not None:  # which no event of the job is mistaken for
            worker = {} if self.index is None else {"worker": self.index}
            return {"search": self.stage.name, "trial": self.trial, **worker, **job}
        task = {} if self.index is None else {"task": self.index}
        return {"stage": self.stage.name, **job, **task}


@dataclass(frozen=True)
class Plan:
    """The stages of one run, in an order that respects their dependencies.

    Attributes:
        notes: what the user should know about them.
        notify_command: what is told of the run's first start, failures and end; empty: nothing.
    """

    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()
    notify_command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.stages:
            raise RequestError("a plan has at least one stage")
        before: set[str] = set()
        for stage in self.stages:
            if stage.name in before:
                raise RequestError(f"there are two stages called {stage.name!r}")
            if stage.best_of is not None and stage.best_of not in before:
                raise RequestError(f"{stage.name}: there is no stage {stage.best_of!r} before it")
            for origin in stage.origins():
                if origin.run is None and origin.stage not in before:
                    raise RequestError(f"{stage.name} needs {origin}, which is no stage before it")
            before.add(stage.name)

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

    @property
    def searching(self) -> Stage | None:
        """The stage that searches; None where none does."""
        return next((stage for stage in self.stages if stage.search is not None), None)

    def tasks(self) -> Iterator[StageTask]:
        """Every stage, arrays task by task."""
        return (task for stage in self.stages for task in stage.tasks())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _within(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise RequestError(f"{name}: found {value}; expected 1 to {most}")
