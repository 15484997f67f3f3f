"""The site profile: what a user or an administrator writes once about a cluster."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rtdetr_slurm.slurm.times import parse_minutes

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def _one_line(value: str) -> str:
    if not value.strip() or "\n" in value or "\r" in value:
        raise ValueError("one line of text")
    return value


def _env_name(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise ValueError("the name of an environment variable")
    return value


def _sha256(value: str) -> str:
    digest = value.removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise ValueError("64 hexadecimal digits, with or without 'sha256:' before them")
    return digest


def _minutes(value: Any) -> Any:
    # A float would have lost what was written; leave anything but an int or a str to pydantic.
    if isinstance(value, bool) or not isinstance(value, int | str):
        return value
    return parse_minutes(value)


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


Line = Annotated[str, AfterValidator(_one_line)]
EnvName = Annotated[str, AfterValidator(_env_name)]
Minutes = Annotated[int, BeforeValidator(_minutes)]
Sha256 = Annotated[str, AfterValidator(_sha256)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_default(cls, data: Any) -> Any:
        return {} if data is None else data


class Partitions(_Section):
    """Partition of each role."""

    train: Line | None = Field(default=None, description="Training, evaluation, export.")
    cpu: Line | None = Field(default=None, description="Stages that need no GPU.")
    tensorrt: Line | None = Field(
        default=None, description="Building and running TensorRT engines."
    )


class Gpu(_Section):
    """How GPUs are requested from Slurm."""

    request: Literal["gpus-per-node", "gres", "none"] = Field(
        default="gpus-per-node",
        description="`--gpus-per-node=N`, `--gres=gpu:N`, or none where Slurm manages no GPUs.",
    )
    type: Line | None = Field(default=None, description="GPU type, as in `--gres=gpu:a100:4`.")


class SiteImage(_Section):
    """A container image on a file system that login and compute nodes see."""

    path: Line = Field(description="SIF file or sandbox folder.")
    sha256: Sha256 | None = Field(default=None, description="Digest the SIF must have.")


ImageEntry = Annotated[SiteImage, BeforeValidator(_image)]


class Images(_Section):
    """Image of each role."""

    train: ImageEntry | None = Field(
        default=None, description="The training image (see Apptainerfile)."
    )
    tensorrt: ImageEntry | None = Field(default=None, description="The TensorRT image.")


class SiteBind(_Section):
    """A folder or file of the host that the container sees."""

    source: Line
    target: Line | None = None
    read_only: bool = False


class Limits(_Section):
    """What a job may not exceed; those of /etc/rtdetr-slurm/site.yaml cannot be widened."""

    partitions: list[Line] | None = Field(default=None, description="The only partitions allowed.")
    max_nodes: int | None = Field(default=None, ge=1)
    max_gpus_per_node: int | None = Field(default=None, ge=1)
    max_time: Minutes | None = Field(default=None, description="Longest time limit.")


class Site(_Section):
    """One cluster. Every key is optional in a file; later files fill in what earlier ones lack."""

    name: Line = Field(default="cluster", description="What plans and records call this cluster.")
    scheduler: Literal["slurm", "local"] = Field(
        default="slurm", description="`local` runs on this machine, without a container."
    )
    partitions: Partitions = Partitions()
    account: Line | None = Field(default=None, description="sbatch --account.")
    qos: Line | None = Field(default=None, description="sbatch --qos.")
    constraint: Line | None = Field(default=None, description="sbatch --constraint.")
    wckey: Line | None = Field(default=None, description="sbatch --wckey; left out when null.")
    time: Minutes | None = Field(default=None, description="Time limit of a job that names none.")
    cpus_per_task: int | None = Field(default=None, ge=1, description="CPUs per node.")
    cpus_per_gpu: int | None = Field(
        default=None, ge=1, description="CPUs per GPU of a node; used where cpus_per_task is null."
    )
    mem_gb: float | None = Field(default=None, gt=0, description="Memory per node in GiB.")
    gpu: Gpu = Gpu()
    images: Images = Images()
    binds: list[Annotated[SiteBind, BeforeValidator(_bind)]] = Field(
        default_factory=list,
        description="Bound besides the data, results and run folders, which always are.",
    )
    module_lines: list[Line] = Field(
        default_factory=list, description="Shell lines run before the job, such as `module load`."
    )
    env: list[EnvName] = Field(
        default_factory=list, description="Host environment variables let into the container."
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
    limits: Limits = Limits()


def merge(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One profile from several, highest precedence first, merged per key (nested maps too)."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            if key not in merged:
                merged[key] = value
            elif isinstance(merged[key], Mapping) and isinstance(value, Mapping):
                merged[key] = merge([merged[key], value])
    return merged


def tighten(limits: Mapping[str, Any], admin: Mapping[str, Any]) -> dict[str, Any]:
    """`limits` cut down to what the administrator's allow; both as validated plain values."""
    result = dict(limits)
    for key, cap in admin.items():
        own = result.get(key)
        if cap is None:
            continue
        if own is None:
            result[key] = cap
        elif isinstance(cap, list):
            result[key] = [name for name in own if name in cap]
        else:
            result[key] = min(own, cap)
    return result
