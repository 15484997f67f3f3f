"""The site profile: what a user or an administrator writes once about a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    TypeAdapter,
    model_validator,
)

from rtdetr_slurm.actions import EngineName, get_action
from rtdetr_slurm.contract import Env
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.model_check import Matches
from rtdetr_slurm.slurm import names
from rtdetr_slurm.slurm.environment import is_secret
from rtdetr_slurm.slurm.times import minutes_of_field

RoleName = Literal["train", "cpu", "tensorrt"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
"""Kinds of nodes that jobs run on; which action takes which is in the table of actions."""
TRAIN_ROLE: RoleName = "train"
"""The kind that actions of several nodes and GPUs run on."""

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LAUNCH_ENV = frozenset(value for name, value in vars(Env).items() if name.isupper()) | {
    *("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK"),
    *("PYTHONNOUSERSITE", "PYTHONUNBUFFERED"),
}


def _one_line(value: str) -> str:
    if not value.strip() or names.has_control_character(value):
        raise ValueError("one line of text")
    return value


def _env_name(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("the name of an environment variable")
    if value in _LAUNCH_ENV:
        launch = ", ".join(sorted(_LAUNCH_ENV))
        raise ValueError(f"any name but those that the launch itself sets: {launch}")
    return value


def _plain_env_name(value: str) -> str:
    if is_secret(value):
        raise ValueError(
            f"any name but a secret's; write secrets: [{value}], and set it where you submit"
        )
    return _env_name(value)


def _env_value(value: str) -> str:
    if any(character in value for character in "\n\r\0"):
        raise ValueError("text without line breaks and NUL")
    return value


def sha256_digits(value: str) -> str:
    """A digest without its prefix; raises ValueError for what is none."""
    digest = value.removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise ValueError("64 hexadecimal digits, with or without 'sha256:' before them")
    return digest


def _image(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _bind(value: Any) -> Any:
    """`src`, `src:dst` and `src:dst:ro|rw`, Apptainer's short forms, as a mapping."""
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 3 or (len(parts) == 3 and parts[2] not in ("ro", "rw")):
        raise ValueError(
            "'source', 'source:target' or 'source:target:ro'; for a path with ':' the long form "
            "{source: …, target: …, read_only: true}"
        )
    return {
        "source": parts[0],
        "target": parts[1] if len(parts) > 1 else None,
        "read_only": len(parts) == 3 and parts[2] == "ro",
    }


def _env_item(value: Any) -> Any:
    if isinstance(value, str):
        return {value: None}
    if isinstance(value, dict) and len(value) == 1:
        return value
    raise ValueError("the name of an environment variable, or one 'NAME: value'")


def _env(value: Any) -> Any:
    """A list of names and one-key maps as one mapping; a null takes back farther files' names."""
    if value is None:
        return {}
    if isinstance(value, dict):
        return value
    if not isinstance(value, list):
        raise ValueError("a list of names, or 'NAME: value' lines")
    merged: dict[str, str | None] = {}
    for item in _ENV_ITEMS.validate_python(value, strict=True):
        if twice := merged.keys() & item.keys():
            raise ValueError(f"each name once; {twice.pop()} is given twice")
        merged |= item
    return merged


Line = Annotated[str, AfterValidator(_one_line)]
Name = Annotated[str, Matches(*names.NAME)]
Names = Annotated[str, Matches(*names.NAMES)]
Constraint = Annotated[str, Matches(*names.CONSTRAINT)]
GpuType = Annotated[str, Matches(*names.GPU_TYPE)]
EnvName = Annotated[str, AfterValidator(_env_name)]
EnvValue = Annotated[str, AfterValidator(_env_value)]
PlainEnvName = Annotated[str, AfterValidator(_plain_env_name)]
EnvVariables = dict[PlainEnvName, EnvValue | None]
_ENV_ITEMS = TypeAdapter(list[Annotated[EnvVariables, BeforeValidator(_env_item)]])
Minutes = Annotated[int, BeforeValidator(minutes_of_field)]
Sha256 = Annotated[str, AfterValidator(sha256_digits)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


class Gpu(_Section):
    """How GPUs are requested from Slurm."""

    request: Literal["gpus-per-node", "gres", "none"] = Field(
        default="gpus-per-node",
        description="`--gpus-per-node=N`, `--gres=gpu:N`, or none where Slurm manages no GPUs.",
    )
    type: GpuType | None = Field(default=None, description="GPU type, as in `--gres=gpu:a100:4`.")
    memory_gb: float | None = Field(
        default=None,
        gt=0,
        description="Memory of each GPU in GiB; where it is short, plans say so.",
    )


class SiteImage(_Section):
    """A container image on a file system that login and compute nodes see."""

    path: Line = Field(description="SIF file or sandbox folder.")
    sha256: Sha256 | None = Field(default=None, description="Digest the SIF must have.")


class Role(_Section):
    """What the jobs of one role get; at the profile's top level, what those of all roles get."""

    partition: Names | None = Field(default=None, description="sbatch --partition.")
    account: Name | None = Field(default=None, description="sbatch --account.")
    qos: Names | None = Field(default=None, description="sbatch --qos.")
    constraint: Constraint | None = Field(default=None, description="sbatch --constraint.")
    exclusive: bool = Field(default=False, description="sbatch --exclusive: no node is shared.")
    time: Minutes | None = Field(default=None, description="Time limit of a job that names none.")
    cpus_per_task: int | None = Field(default=None, ge=1, description="CPUs per node.")
    cpus_per_gpu: int | None = Field(
        default=None, ge=1, description="CPUs per GPU of a node; used where cpus_per_task is null."
    )
    mem_gb: float | None = Field(default=None, gt=0, description="Memory per node in GiB.")
    gpu: Gpu = Gpu()
    engine: EngineName = Field(
        default="rtdetr",
        description="Whose image it is: `rtdetr` of the Apptainerfile, or `tao`, NVIDIA's.",
    )
    container: Literal["apptainer", "none"] = Field(
        default="apptainer", description="`none` runs in the Python environment of `python`."
    )
    image: Annotated[SiteImage, BeforeValidator(_image)] | None = Field(
        default=None, description="What container `apptainer` runs in (see Apptainerfile)."
    )
    python: Line | None = Field(
        default=None,
        description="The Python that has rtdetr-slurm[engine] on the node, for container `none`; "
        "null means the one that runs rtdetr-slurm.",
    )

    def cpus_per_node(self, gpus: int) -> int | None:
        """CPUs of a node on which a job has so many GPUs; None leaves it to the cluster."""
        if self.cpus_per_task is None and self.cpus_per_gpu is not None:
            return self.cpus_per_gpu * gpus
        return self.cpus_per_task


class Roles(_Section):
    """What each role has of its own; it wins over the same key at the profile's top level."""

    train: Role = Field(default=Role(), description="Training, evaluation, export.")
    cpu: Role = Field(default=Role(), description="Stages that need no GPU.")
    tensorrt: Role = Field(default=Role(), description="Building and running TensorRT engines.")


class SiteBind(_Section):
    """A folder or file of the host that the container sees."""

    source: Line
    target: Line | None = None
    read_only: bool = False


class Limits(_Section):
    """What a job may not exceed; those of /etc/rtdetr-slurm/site.yaml cannot be widened."""

    _places: dict[str, str] = PrivateAttr(default_factory=dict)

    def located(self, places: Mapping[str, str]) -> Limits:
        """The same, with `FILE:LINE` of each limit."""
        copy = self.model_copy()
        copy._places = dict(places)
        return copy

    def place(self, name: str) -> str:
        """Where a limit stands, ` (FILE:LINE)`; empty where it comes from no file."""
        return f" ({self._places[name]})" if name in self._places else ""

    partitions: list[Name] | None = Field(default=None, description="The only partitions allowed.")
    max_nodes: int | None = Field(default=None, ge=1)
    max_gpus_per_node: int | None = Field(default=None, ge=1)
    max_time: Minutes | None = Field(default=None, description="Longest time limit.")
    max_trials: int | None = Field(
        default=None, ge=1, description="Trials of a hyper-parameter sweep."
    )
    max_gpu_hours: float | None = Field(
        default=None,
        gt=0,
        description="GPU hours that one submission may ask for: nodes × GPUs × time limit, over "
        "all of its jobs.",
    )


class Site(Role):
    """One cluster. Every key is optional in a file; later files fill in what earlier ones lack."""

    name: Line = Field(default="cluster", description="What plans and records call this cluster.")
    scheduler: Literal["slurm", "local"] = Field(
        default="slurm", description="`local` runs on this machine, without a container."
    )
    roles: Roles = Roles()
    wckey: Name | None = Field(default=None, description="sbatch --wckey; left out when null.")
    models: dict[Line, Line | None] = Field(
        default_factory=dict,
        description="Pretrained weights on the shared file system, by the name of a backbone "
        "(resnet_50), or rtdetr_ and that of one for a whole detector.",
    )
    binds: list[Annotated[SiteBind, BeforeValidator(_bind)]] = Field(
        default_factory=list,
        description="Bound besides the data, results and run folders, which always are.",
    )
    module_lines: list[Line] = Field(
        default_factory=list, description="Shell lines run before the job, such as `module load`."
    )
    env: Annotated[EnvVariables, BeforeValidator(_env)] = Field(
        default_factory=dict,
        description="Environment variables of the job: set to a value, or with null let in from "
        "the host.",
    )
    secrets: list[EnvName] = Field(
        default_factory=list,
        description="Variables of the shell that submits, such as WANDB_API_KEY, which the program "
        "gets and no record, script or log holds.",
    )
    scratch: Line | None = Field(
        default=None,
        description="Node-local folder for temporary files, expanded on the node ($TMPDIR).",
    )
    run_root: Line = Field(
        default="runs", description="Where run folders are made; compute nodes see it."
    )
    accelerator: Literal["cuda", "cpu"] | None = Field(
        default=None,
        description="What training runs on; null means cuda, or on `local` what is there.",
    )
    network_interface: Line | None = Field(
        default=None, description="Interface for NCCL and Gloo; null lets them choose."
    )
    signal_lead_s: int = Field(
        default=120,
        ge=10,
        le=3600,
        description="Seconds before the time limit at which a job is stopped.",
    )
    requeue: bool = Field(
        default=True, description="Whether an interrupted job may go back to the queue."
    )
    apptainer: Line = Field(default="apptainer", description="The apptainer program.")
    apptainer_flags: list[Line] = Field(
        default_factory=list, description="Further flags of `apptainer exec`, such as --userns."
    )
    notify_command: list[Line] = Field(
        default_factory=list,
        description="Program and arguments that are told of runs with `job.notify: command`.",
    )
    templates: Line | None = Field(
        default=None,
        description="Folder of sbatch templates; `render` takes those in it instead of its own.",
    )
    limits: Limits = Limits()

    def for_role(self, name: RoleName) -> Role:
        """What a job of this role gets, with nothing left to merge.

        Returns:
            Its `image` is None exactly if its container is `none`, and `python` is None else.

        Raises:
            SiteError: it needs an image, and there is none, or TAO's, and there is no container.
        """
        role = self.merged_role(name)
        if role.engine == "tao" and role.container == "none":
            raise SiteError(
                f"site '{self.name}' has engine: tao for role '{name}', and no container: TAO runs "
                "in NVIDIA's image only; set container: apptainer, or engine: rtdetr"
            )
        if role.container == "apptainer" and role.image is None:
            raise SiteError(
                f"site '{self.name}' names no image for role '{name}'; set image, or "
                f"roles.{name}.image, in the profile to a SIF built from the Apptainerfile, or "
                "container: none to run without one (docs/site.md)"
            )
        return role

    def merged_role(self, name: RoleName) -> Role:
        """The same, whether there is an image or not."""
        own: Role = getattr(self.roles, name)
        given = own.model_fields_set
        values = {key: getattr(own if key in given else self, key) for key in Role.model_fields}
        gpu = {key: getattr(own.gpu, key) for key in own.gpu.model_fields_set}
        if "type" in gpu:
            gpu.setdefault("memory_gb", None)  # what the top level says is another type's
        values["gpu"] = self.gpu.model_copy(update=gpu)
        if own.cpus_per_gpu is not None and "cpus_per_task" not in given:
            values["cpus_per_task"] = None  # the role's own way to count them wins
        if self.scheduler == "local":
            values["container"] = "none"
        values["image" if values["container"] == "none" else "python"] = None
        return Role(**values)

    def engine_of(self, action: str) -> EngineName:
        """Whose image an action runs in."""
        return self.merged_role(get_action(action).role).engine
