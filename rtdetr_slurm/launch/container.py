"""The command line and environment in which a container, or its local stand-in, starts. Pure."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Mapping

from rtdetr_slurm.contract import Env
from rtdetr_slurm.plan.model import Bind, Container, Stage

_KEPT_APPTAINER = frozenset({"APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "APPTAINER_CONFIGDIR"})
_NOT_LOCAL = ("SLURM_", "SUBMITIT_", "PMI_", "PMIX_", "TORCHELASTIC_")
_NOT_LOCAL_NAMES = frozenset({"LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"})


def apptainer_argv(
    container: Container, command: tuple[str, ...], *, workdir: str, scratch: str | None, nv: bool
) -> list[str]:
    """`apptainer exec` with nothing of the host but what is named."""
    # --no-eval: else a shell would run what a value in backticks or $() says.
    argv = [container.apptainer, "exec", "--cleanenv", "--no-eval"]
    argv += ["--no-home", "--no-mount", "home,cwd"]
    argv += ["--pwd", workdir, *container.flags]
    argv += ["--nv"] if nv else []
    binds = [*container.binds, *([Bind(scratch, scratch)] if scratch else [])]
    for bind in binds:
        argv += ["--mount", mount_option(bind)]
    return [*argv, container.image.path, *command]


def mount_option(bind: Bind) -> str:
    """Apptainer's `--mount` value; its fields are CSV, so a path may hold ',' and ':'."""
    fields = ["type=bind", f"source={bind.source}", f"destination={bind.target}"]
    fields += ["ro"] if bind.read_only else []
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(fields)
    return text.getvalue().removesuffix("\n")


def apptainer_environment(environ: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
    """The environment of apptainer itself: the host's, with `inside` marked for the container.

    The container sees `inside` only (--cleanenv). A user's own APPTAINER_BIND and the like would
    change what runs without a trace in the record, so they are dropped.
    """
    host = {
        name: value
        for name, value in environ.items()
        if name in _KEPT_APPTAINER or not name.startswith(("APPTAINER", "SINGULARITY"))
    }
    return host | {f"APPTAINERENV_{name}": value for name, value in inside.items()}


def local_command(command: tuple[str, ...]) -> list[str]:
    """`rtdetr …` of this very Python environment."""
    program, *arguments = command
    if program != "rtdetr":
        raise ValueError(f"no local stand-in for {program}")
    return [sys.executable, "-m", "rtdetr_slurm.engine.process.entry", *arguments]


def local_environment(environ: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
    """This machine's environment without what a scheduler or an outer torchrun left in it."""
    host = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_NOT_LOCAL) and name not in _NOT_LOCAL_NAMES
    }
    return host | dict(inside)


def inside_environment(
    environ: Mapping[str, str],
    stage: Stage,
    *,
    rank: int,
    devices: str | None,
    scratch: str | None,
) -> dict[str, str]:
    """What the engine is told: the launch contract, the site's network, the allow-list."""
    launch = stage.launch
    env = {name: environ[name] for name in launch.env if name in environ}
    env |= {
        Env.WORLD_SIZE: str(stage.resources.nodes),
        Env.NODE_RANK: str(rank),
        Env.RANK: str(rank),
        Env.MASTER_ADDR: environ[Env.MASTER_ADDR],
        Env.MASTER_PORT: environ[Env.MASTER_PORT],
        Env.NUM_GPU_PER_NODE: str(stage.resources.gpus_per_node),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    optional = {
        Env.CUDA_VISIBLE_DEVICES: devices,
        Env.ACCELERATOR: launch.accelerator,
        Env.RESUME: environ.get(Env.RESUME),
        "TMPDIR": scratch,
        "NCCL_SOCKET_IFNAME": launch.network_interface,
        "GLOO_SOCKET_IFNAME": launch.network_interface,
    }
    return env | {name: value for name, value in optional.items() if value is not None}
