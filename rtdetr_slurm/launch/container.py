"""Command line and environment of the program, in a container or on the host. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rtdetr_slurm.actions import MODULES
from rtdetr_slurm.contract import Env
from rtdetr_slurm.plan.model import Bind, Container, Stage

_KEPT_APPTAINER = frozenset({"APPTAINER_CACHEDIR", "APPTAINER_TMPDIR", "APPTAINER_CONFIGDIR"})
_NOT_OURS = ("SLURM_", "SUBMITIT_", "PMI_", "PMIX_", "TORCHELASTIC_", "RTDETR_SLURM_")
_NOT_OUR_NAMES = frozenset({"LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE"})


def apptainer_argv(
    container: Container,
    command: tuple[str, ...],
    *,
    workdir: str,
    binds: Sequence[Bind] = (),
    scratch: str | None,
    nv: bool,
) -> list[str]:
    """`apptainer exec` with nothing of the host but what is named.

    Args:
        binds: besides those of the plan.
    """
    # --no-eval: else a shell would run what a value in backticks or $() says.
    # --quiet: only what went wrong; the log is to say what the job does.
    argv = [container.apptainer, "--quiet", "exec", "--cleanenv", "--no-eval"]
    argv += ["--no-home", "--no-mount", "home,cwd"]
    argv += ["--pwd", workdir, *container.flags]
    argv += ["--nv"] if nv else []
    scratch_bind = [Bind(scratch, scratch)] if scratch else []
    for bind in (*container.binds, *binds, *scratch_bind):
        argv += ["--mount", bind.mount_option()]
    return [*argv, container.image.path, *command]


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


def host_command(command: tuple[str, ...], python: str | None) -> list[str]:
    """`rtdetr …` of a Python environment on the host: `python`'s, else this very one."""
    program, *arguments = command
    return [python or sys.executable, "-m", MODULES[program], *arguments]


def host_environment(environ: Mapping[str, str], inside: Mapping[str, str]) -> dict[str, str]:
    """The host's environment without what a scheduler or an outer torchrun left in it."""
    host = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_NOT_OURS) and name not in _NOT_OUR_NAMES
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
    """What the engine is told: the launch contract, over the variables that the site names, over
    what follows from the site's other keys."""
    launch = stage.launch
    derived = {
        "TMPDIR": scratch,
        "NCCL_SOCKET_IFNAME": launch.network_interface,
        "GLOO_SOCKET_IFNAME": launch.network_interface,
        "OMP_NUM_THREADS": environ.get("OMP_NUM_THREADS"),
    }
    named = {n: environ.get(n) if value is None else value for n, value in launch.env.items()}
    contract = {
        Env.WORLD_SIZE: str(stage.resources.nodes),
        Env.NODE_RANK: str(rank),
        Env.RANK: str(rank),
        Env.MASTER_ADDR: environ[Env.MASTER_ADDR],
        Env.MASTER_PORT: environ[Env.MASTER_PORT],
        Env.NUM_GPU_PER_NODE: str(stage.resources.gpus_per_node),
        Env.CUDA_VISIBLE_DEVICES: devices,
        Env.ACCELERATOR: launch.accelerator,
        Env.CPUS: allocated_cpus(environ),
        Env.RESUME: environ.get(Env.RESUME),
        Env.CLAIM: environ.get(Env.CLAIM),
        Env.RESTART: environ.get(Env.RESTART),
        Env.LAUNCHED: environ.get(Env.LAUNCHED),
        Env.HANG_MINUTES: f"{launch.endurance.hang_minutes:g}",
        Env.NODE: environ.get("SLURMD_NODENAME"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    layers = (derived, named, contract)
    return {k: v for layer in layers for k, v in layer.items() if v is not None}


def allocated_cpus(environ: Mapping[str, str]) -> str | None:
    """CPU cores of this node that Slurm has given to the task, None where it does not say.

    Not every cluster binds its tasks to them: on others a task may run on every core of the node.
    """
    return environ.get("SLURM_CPUS_PER_TASK") or environ.get("SLURM_CPUS_ON_NODE") or None
