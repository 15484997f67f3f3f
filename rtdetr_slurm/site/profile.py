"""The site profile: what a user or an administrator writes once about a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    model_validator,
)

from rtdetr_slurm.actions import EngineName, get_action
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.site.kinds import (
    ComputeCapability,
    Constraint,
    EnvName,
    EnvVariables,
    GpuType,
    Line,
    Minutes,
    Name,
    Names,
    Sha256,
    TargetName,
    bind_of,
    env_of,
    image_of,
)

RoleName = Literal["train", "cpu", "tensorrt"]
ROLES: tuple[RoleName, ...] = get_args(RoleName)
"""Kinds of nodes that jobs run on; which action takes which is in the table of actions."""
TRAIN_ROLE: RoleName = "train"
"""The kind that actions of several nodes and GPUs run on."""
TENSORRT_ROLE: RoleName = "tensorrt"
"""The kind that detectors are deployed on."""


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


class S3(_Section):
    """How s3:// addresses are reached; what is null is as boto3 has it (AWS_* variables and
    ~/.aws). Credentials are never in a profile."""

    endpoint_url: Line | None = Field(
        default=None, description="Of another store than Amazon's, such as https://minio:9000."
    )
    region: Line | None = Field(default=None, description="Region of the buckets.")
    profile: Line | None = Field(default=None, description="Section of ~/.aws to use.")
    anonymous: bool = Field(default=False, description="Without credentials: public buckets alone.")


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
    image: Annotated[SiteImage, BeforeValidator(image_of)] | None = Field(
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


class Target(_Section):
    """A kind of GPU that engines are built for, and how a job gets one."""

    name: TargetName = Field(description="What stages of it are called after.")
    partition: Names | None = Field(default=None, description="As of the role.")
    constraint: Constraint | None = Field(default=None, description="As of the role.")
    gpu: Gpu = Gpu()
    compute_capability: ComputeCapability | None = Field(
        default=None, description="Of these GPUs, for engines that are built without one."
    )


def _each_once(targets: list[Target]) -> list[Target]:
    names = [target.name for target in targets]
    if len({*names}) < len(names):
        raise ValueError("each name once")
    return targets


class TensorRtRole(Role):
    """The role of TensorRT's jobs."""

    targets: Annotated[list[Target], AfterValidator(_each_once)] = Field(
        default_factory=list,
        description="The kinds of GPU that each deployed detector gets an engine for.",
    )


class Roles(_Section):
    """What each role has of its own; it wins over the same key at the profile's top level."""

    train: Role = Field(default=Role(), description="Training, evaluation, export.")
    cpu: Role = Field(default=Role(), description="Stages that need no GPU.")
    tensorrt: TensorRtRole = Field(
        default=TensorRtRole(), description="Building and running TensorRT engines."
    )


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
    binds: list[Annotated[SiteBind, BeforeValidator(bind_of)]] = Field(
        default_factory=list,
        description="Bound besides the data, results and run folders, which always are.",
    )
    module_lines: list[Line] = Field(
        default_factory=list, description="Shell lines run before the job, such as `module load`."
    )
    env: Annotated[EnvVariables, BeforeValidator(env_of)] = Field(
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
    cache_root: Line | None = Field(
        default=None,
        description="Where what is fetched and unpacked is kept for all runs; compute nodes see "
        "it. Null means .cache in run_root.",
    )
    staging: Literal["job", "login"] = Field(
        default="job",
        description="Who fetches and unpacks data: a first job of the chain, on role cpu, or "
        "`submit` itself, where compute nodes reach no object store.",
    )
    s3: S3 = S3()
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

    def for_role(self, name: RoleName, target: Target | None = None) -> Role:
        """What a job of this role gets, with nothing left to merge.

        Args:
            target: the kind of GPU that it is for, of those of the role.

        Returns:
            Its `image` is None exactly if its container is `none`, and `python` is None else.

        Raises:
            SiteError: it needs an image, and there is none, or TAO's, and there is no container.
        """
        role = self.merged_role(name, target)
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

    def merged_role(self, name: RoleName, target: Target | None = None) -> Role:
        """The same, whether there is an image or not."""
        own: Role = getattr(self.roles, name)
        given = own.model_fields_set
        values = {key: getattr(own if key in given else self, key) for key in Role.model_fields}
        values["gpu"] = _nearer(own.gpu, self.gpu)
        if target is not None:
            given_there = target.model_fields_set & Role.model_fields.keys()
            values |= {key: getattr(target, key) for key in given_there}
            values["gpu"] = _nearer(target.gpu, _nearer(own.gpu, self.gpu))
        if own.cpus_per_gpu is not None and "cpus_per_task" not in given:
            values["cpus_per_task"] = None  # the role's own way to count them wins
        if self.scheduler == "local":
            values["container"] = "none"
        values["image" if values["container"] == "none" else "python"] = None
        return Role(**values)

    def target(self, name: str | None) -> Target | None:
        """The kind of GPU of that name; None for None."""
        found = (one for one in self.roles.tensorrt.targets if one.name == name)
        return None if name is None else next(found)

    def engine_of(self, action: str) -> EngineName:
        """Whose image an action runs in."""
        return self.merged_role(get_action(action).role).engine


def _nearer(own: Gpu, farther: Gpu) -> Gpu:
    """`farther` with what `own` says otherwise."""
    given = {key: getattr(own, key) for key in own.model_fields_set}
    if "type" in given:
        given.setdefault("memory_gb", None)  # what is farther says it of another type
    return farther.model_copy(update=given)
